"""A machine that runs pods as plain local processes: what the API server needs behind it, and no more.

It stands where a kubelet stands: pods of its nodes become processes with a log, ready at once; a deleted
pod is ended and then removed, one that is removed by force is ended after it. exec starts another process,
port-forward connects to the machine itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

from podwire.apiserver import ApiServer
from podwire.apiserver.options import DeleteOptions
from podwire.apiserver.store import Change
from podwire.apiserver.streams import STDERR, STDOUT
from podwire.base.errors import NotFound, Unreachable
from podwire.base.moments import now

Object = dict[str, Any]


class Machine:
    """The nodes ``n1`` and ``n2`` of a server, and all pods on them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._addresses = 0
        self._server: ApiServer | None = None

    def join(self, server: ApiServer) -> None:
        """Register the nodes and run what is placed on them from here on."""
        self._server = server
        for name in ("n1", "n2"):
            server.objects.create(server.objects.kind("nodes"), "", node(name))
        server.store.listeners.append(self._hear)

    def close(self) -> None:
        for uid in list(self.processes):
            self._end(uid)

    def _hear(self, change: Change) -> None:
        if change.resource != "pods":
            return
        loop = asyncio.get_running_loop()
        if change.kind == "DELETED":
            loop.call_soon(self._end, change.stored.object["metadata"]["uid"])
        elif change.stored.object["spec"].get("nodeName"):
            loop.call_soon(self._run, change.stored.namespace, change.stored.name)

    def _end(self, uid: str) -> None:
        """The pod's process and those it started: they are a session."""
        process = self.processes.pop(uid, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _run(self, namespace: str, name: str) -> None:
        assert self._server is not None
        objects = self._server.objects
        pod = objects.find("pods", namespace, name)
        if pod is None:
            return
        uid = pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            self._end(uid)
            objects.delete(objects.kind("pods"), namespace, name, DeleteOptions(grace=0))
        elif uid not in self.processes:
            self._start(pod)
            status = self._status(pod)
            objects.change(
                objects.kind("pods"),
                namespace,
                name,
                lambda body: {**body, "status": status},
                subresource="status",
            )

    def _start(self, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        command = [*(container.get("command") or []), *(container.get("args") or [])] or ["sleep", "1000"]
        with self._log(pod).open("wb") as log:
            self.processes[pod["metadata"]["uid"]] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _status(self, pod: Object) -> Object:
        self._addresses += 1
        address, moment = f"10.9.0.{self._addresses}", now()
        kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        return {
            **pod["status"],
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": "192.0.2.1",
            "startTime": moment,
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": moment} for kind in kinds],
            "containerStatuses": [
                {
                    "name": one["name"],
                    "image": one["image"],
                    "imageID": "",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": moment}},
                }
                for one in pod["spec"]["containers"]
            ],
        }

    def _log(self, pod: Object) -> Path:
        return self.directory / f"{pod['metadata']['uid']}.log"

    def _pod(self, namespace: str, name: str) -> Object:
        assert self._server is not None
        pod = self._server.objects.find("pods", namespace, name)
        if pod is None or pod["metadata"]["uid"] not in self.processes:
            raise NotFound(f"pod {name} does not run here")
        return pod

    # -- PodRuntime

    async def exec(
        self, namespace: str, pod: str, container: str | None, command: list[str], *, stdin: bool, tty: bool
    ) -> Execution:
        self._pod(namespace, pod)
        try:
            return Execution(command, tty)
        except FileNotFoundError as error:
            raise NotFound(f"{command[0]} is no program here") from error

    async def attach(
        self, namespace: str, pod: str, container: str | None, *, stdin: bool, tty: bool
    ) -> Execution:
        return Execution(["tail", "-n", "+1", str(self._log(self._pod(namespace, pod)))], False)

    async def logs(
        self, namespace: str, pod: str, container: str | None, **options: Any
    ) -> AsyncIterator[bytes]:
        found = self._pod(namespace, pod)
        with self._log(found).open("rb") as log:
            text = log.read()
            if options["tail_lines"] is not None:
                text = b"".join(text.splitlines(keepends=True)[-options["tail_lines"] :])
            yield text
            running = options["follow"]
            while running:
                running = self.processes[found["metadata"]["uid"]].poll() is None
                yield log.read()
                await asyncio.sleep(0.02)

    async def port_forward(self, namespace: str, pod: str, port: int) -> Connection:
        self._pod(namespace, pod)
        try:
            return Connection(*await asyncio.open_connection("127.0.0.1", port))
        except OSError as error:
            raise Unreachable(f"connect to port {port}: {error.strerror}") from error


class Execution:
    """One process of an exec, with pipes or with a terminal."""

    def __init__(self, command: list[str], tty: bool) -> None:
        self._master = -1
        if tty:
            self._master, slave = pty.openpty()
            self._process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, close_fds=True
            )
            os.close(slave)
            self._input = self._master
        else:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
            assert self._process.stdin is not None
            self._input = self._process.stdin.fileno()

    async def write_stdin(self, data: bytes) -> None:
        await asyncio.to_thread(os.write, self._input, data)

    async def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        if self._master >= 0:
            ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._master >= 0:
            sources = {STDOUT: self._master}
        else:
            assert self._process.stdout is not None and self._process.stderr is not None
            sources = {STDOUT: self._process.stdout.fileno(), STDERR: self._process.stderr.fileno()}
        reads = {channel: asyncio.to_thread(_read, source) for channel, source in sources.items()}
        pending = {asyncio.get_running_loop().create_task(work): channel for channel, work in reads.items()}
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                channel = pending.pop(task)
                if data := task.result():
                    yield channel, data
                    again = asyncio.get_running_loop().create_task(asyncio.to_thread(_read, sources[channel]))
                    pending[again] = channel

    async def wait(self) -> int:
        code = await asyncio.to_thread(self._process.wait)
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def _read(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except OSError:  # the other side of a terminal is closed
        return b""


class Connection:
    """A TCP connection on this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        return await self._reader.read(65536)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close_write(self) -> None:
        self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()


def node(name: str, **labels: str) -> Object:
    """A Node that is ready, and never expected to say so again."""
    moment = now()
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
    versions = (
        *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion"),
        *("kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture"),
    )
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {"podCIDR": f"10.9.{name[-1]}.0/24"},
        "status": {
            "conditions": [{**condition, "lastTransitionTime": moment}],
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": name},
            ],
            "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "nodeInfo": {
                version: "v1.32.0" if version == "kubeletVersion" else "test" for version in versions
            },
        },
    }
