"""The server as a process: killed and started again, and started where it cannot be."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.compat


def command(directory: Path, port: int = 0) -> list[str]:
    return [sys.executable, "-m", "podwire.apiserver", "--dir", str(directory), "--port", str(port)]


@contextmanager
def running(directory: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(directory), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("export KUBECONFIG=")
        wait_ready(directory)
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def kubectl(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = f"--kubeconfig={directory / 'admin.kubeconfig'}"
    environment = {**os.environ, "HOME": str(directory)}
    return subprocess.run(["kubectl", config, *arguments], capture_output=True, text=True, env=environment)


def wait_ready(directory: Path) -> None:
    for _ in range(100):
        if kubectl(directory, "get", "--raw", "/readyz").stdout == "ok":
            return
    raise AssertionError("the server did not become ready")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_nothing_is_lost_when_it_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        for number in range(5):
            assert kubectl(tmp_path, "create", "configmap", f"c{number}").returncode == 0
        uid = kubectl(tmp_path, "get", "cm", "c4", "-o", "jsonpath={.metadata.uid}").stdout
        process.send_signal(signal.SIGKILL)
        process.wait()
    with running(tmp_path) as process:
        assert kubectl(tmp_path, "get", "cm", "-o", "name").stdout.count("configmap/c") == 5
        assert kubectl(tmp_path, "get", "cm", "c4", "-o", "jsonpath={.metadata.uid}").stdout == uid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for directory, number, said in (
            (
                tmp_path / "state",
                port,
                f"the API server cannot listen on 127.0.0.1:{port}: Address already in use",
            ),
            (tmp_path / "file", 0, "the API server cannot use its directory"),
        ):
            done = subprocess.run(command(directory, number), capture_output=True, text=True, timeout=30)
            assert done.returncode != 0
            assert done.stderr.startswith(f"Error: {said}"), done.stderr
            assert "Traceback" not in done.stderr and done.stdout == ""
