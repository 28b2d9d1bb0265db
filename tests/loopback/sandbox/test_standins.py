"""The web stand-in and the connection prober, as the separate programs they are, over loopback."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.patience import within
from tests.ports import free_port

from podwire.base.aio import eventually
from podwire.sandbox import images
from podwire.sandbox.connectivity import reach_words


@contextmanager
def stand_in() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """One that listens, and its port; on another port where somebody was faster to take it."""
    for _ in range(5):
        chosen = free_port()
        child = subprocess.Popen(images.web([chosen]), stdout=subprocess.DEVNULL)

        def listens(child: subprocess.Popen[bytes] = child, chosen: int = chosen) -> bool:
            with socket.socket() as sock:
                return child.poll() is not None or sock.connect_ex(("127.0.0.1", chosen)) == 0

        try:
            asyncio.run(eventually(listens, timeout=within(10), what="the web stand-in"))
            if child.poll() is None:
                yield chosen, child
                return
        finally:
            child.terminate()
            child.wait()
    raise AssertionError("five ports were taken by others")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with stand_in() as (chosen, _):
        yield chosen


def exchange(port: int, request: bytes, answers: int = 1) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(request)
        got = b""
        while got.count(b"HTTP/1.1 ") < answers or not got.rstrip().endswith(b"}"):
            piece = sock.recv(65536)
            if not piece:
                break
            got += piece
        return got


def test_it_says_who_it_is_and_what_it_was_asked(port: int) -> None:
    request = b"POST /a?b HTTP/1.1\r\nHost: x\r\nX-Y: z\r\nContent-Length: 5\r\n\r\nhello"
    head, _, body = exchange(port, request).partition(b"\r\n\r\n")
    told = json.loads(body)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert (told["method"], told["path"], told["body"]) == ("POST", "/a?b", "hello")
    assert told["headers"]["X-Y"] == "z"
    assert told["client"].startswith("127.0.0.1:")
    assert told["address"] == f"127.0.0.1:{port}"


def test_statuses_and_two_requests_at_once(port: int) -> None:
    request = (
        b"GET /status/503 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert exchange(port, request, 2).startswith(b"HTTP/1.1 503 ")


def test_what_is_not_http_comes_back(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(b"plain text\n")
        assert sock.recv(100) == b"plain text\n"


def test_without_descriptors_it_waits_for_one() -> None:
    with stand_in() as (chosen, child):

        def sleeps() -> bool:
            """Among clients that it cannot accept: a server that tries all the time runs."""
            return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

        def exhausted() -> bool:
            return len(list(Path(f"/proc/{child.pid}/fd").iterdir())) == 20

        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (20, 20))
        with ExitStack() as opened:
            for _ in range(40):
                opened.enter_context(socket.create_connection(("127.0.0.1", chosen), timeout=5))
            asyncio.run(eventually(exhausted, timeout=within(10), what="no descriptor left"))
            asyncio.run(eventually(sleeps, timeout=within(10), what="it to wait"))
        assert b" 200 " in exchange(chosen, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def reach(*targets: str) -> dict[str, str]:
    done = subprocess.run(
        reach_words(0.5, list(targets)), capture_output=True, text=True, check=True, timeout=30
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_reach_tells_how_each_came_out(port: int) -> None:
    closed = free_port()
    targets = [
        f"tcp/127.0.0.1/{port}",
        f"udp/127.0.0.1/{port}",
        f"tcp/127.0.0.1/{closed}",
        "tcp/no.such.name.invalid/1",
    ]
    assert list(reach(*targets).values()) == ["ok", "ok", "refused", "unknown name"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        target = f"udp/127.0.0.1/{silent.getsockname()[1]}"
        assert reach(target) == {target: "timeout"}
