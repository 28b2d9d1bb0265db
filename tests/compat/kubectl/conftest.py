"""An API server with two nodes, and kubectl pointed at it; one for each file of tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from podwire import controllermanager
from podwire.apiserver import ApiServer, ClusterSettings, ServerConfig
from podwire.base.aio import Supervised

_spec = spec_from_file_location("kubectl_machine", Path(__file__).with_name("machine.py"))
assert _spec and _spec.loader
machine = module_from_spec(_spec)
_spec.loader.exec_module(machine)


@dataclass
class Answer:
    """What kubectl printed and how it ended."""

    code: int
    out: str
    err: str


class Cluster:
    """A server in a thread of its own, and kubectl against it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "state" / "admin.kubeconfig"
        self.namespace = "default"
        self._started: Future[ApiServer] = Future()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="apiserver")

    def start(self) -> None:
        self._thread.start()
        self.server = self._started.result(20)

    def stop(self) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's loop."""
        assert self._loop is not None
        return self._loop

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        logs = self.directory / "logs"
        logs.mkdir()
        here = machine.Machine(logs)
        settings = ClusterSettings(name="test", service_cidrs=("10.96.0.0/24", "fd00:96::/112"))
        server = ApiServer(ServerConfig(directory=self.directory / "state", cluster=settings), here)
        try:
            await server.start()
            here.join(server)
            async with Supervised("test") as group:
                group.start("controllers", controllermanager.run(server))
                self._started.set_result(server)
                await self._stop.wait()
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            raise
        finally:
            here.close()
            await server.stop()

    def command(self, *arguments: str) -> list[str]:
        return [
            "kubectl",
            f"--kubeconfig={self.kubeconfig}",
            f"--cache-dir={self.directory / 'cache'}",
            *(["-n", self.namespace] if "-n" not in arguments and "-A" not in arguments else []),
            *arguments,
        ]

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Answer:
        """kubectl with these arguments, whatever it says."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(self.directory), **environment},
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """What kubectl prints; it must succeed."""
        answer = self.run(*arguments, stdin=stdin, **environment)
        assert answer.code == 0, f"kubectl {' '.join(arguments)}: {answer.err or answer.out}"
        return answer.out

    def popen(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """kubectl that goes on running."""
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    started.start()
    yield started
    started.stop()


@pytest.fixture
def kubectl(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """kubectl in a namespace of the test's own, which is deleted, and gone, after it."""
    cluster.namespace = "default"
    name = request.node.name.replace("test_", "").replace("_", "-").split("[")[0][:50]
    cluster("create", "namespace", name)
    cluster("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=10s")
    cluster.namespace = name
    yield cluster
    cluster.namespace = "default"
    cluster("delete", "namespace", name, "--timeout=30s")
