"""What a client makes of answers, of no answer and of nonsense."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podwire.base.errors import NotFound, NotPermitted, PodwireError, Unreachable
from podwire.client import http
from podwire.client.agent import Addresses, AgentClient, addresses_of

Answer = Callable[[bytes], Path]


@pytest.fixture
def answer(tmp_path: Path) -> Iterator[Answer]:
    """Serve one connection with given bytes; the socket's path."""
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)

    def serve(raw: bytes) -> Path:
        path = tmp_path / "agent.sock"
        listener.bind(str(path))
        listener.listen()

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(raw)

        threads.append(threading.Thread(target=once))
        threads[0].start()
        return path

    try:
        yield serve
    finally:
        for thread in threads:
            thread.join(5)
        listener.close()


def test_json_and_text(answer: Answer) -> None:
    path = answer(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n[1, 2]\n")
    assert AgentClient(path).get("/x") == [1, 2]


def test_a_failure_is_its_sentence_and_hint(answer: Answer) -> None:
    path = answer(b'HTTP/1.1 404 Not Found\r\nPodwire-Hint: ask%20again\r\n\r\n"no such thing"')
    with pytest.raises(NotFound, match="no such thing") as caught:
        AgentClient(path).get("/x")
    assert caught.value.hint == "ask again"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1",
    ],
)
def test_nonsense_and_half_answers_are_unreachable(answer: Answer, raw: bytes) -> None:
    with pytest.raises(Unreachable):
        AgentClient(answer(raw)).get("/x")


def test_an_answer_that_is_no_json_is_named(answer: Answer) -> None:
    path = answer(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{broken")
    with pytest.raises(Unreachable, match="JSON"):
        AgentClient(path).get("/x")


def test_no_socket_names_the_node(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="the agent of node n2 is not running: there is no socket"):
        AgentClient(tmp_path / "none.sock", node="n2").get("/x")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(Unreachable, match="nothing listens on"):
        AgentClient(tmp_path / "dead.sock").get("/x")


def test_a_path_too_long_for_a_socket_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(PodwireError, match="too long"):
        AgentClient(tmp_path / ("x" * 200)).get("/x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_of_root_is_refused_to_others(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents[:-2]):
        place.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        (tmp_path / "agent.sock").chmod(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(NotPermitted, match="only root may talk to the agent"):
                AgentClient(tmp_path / "agent.sock").get("/x")
        finally:
            os.seteuid(0)


def test_requests_cannot_be_split() -> None:
    raw = http.request(
        "GET", f"/v1/endpoint/{http.part('a b/../c' + chr(13) + chr(10))}", {"q": "ü&\r\n"}, {}, None
    )
    assert raw.split(b"\r\n")[0] == b"GET /v1/endpoint/a%20b%2F..%2Fc%0D%0A?q=%C3%BC%26%0D%0A HTTP/1.0"


def test_addresses() -> None:
    given = {"address": {"ipv4": "10.0.1.2"}, "ipv4": {"ip": "10.0.1.2", "gateway": "10.0.1.254"}}
    assert addresses_of(given) == Addresses(ipv4="10.0.1.2", gateway4="10.0.1.254")


def test_a_broken_handler_points_at_the_log(answer: Answer) -> None:
    path = answer(
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n500 Internal Server Error\n\nServer got itself in trouble"
    )
    with pytest.raises(PodwireError, match="its log says why"):
        AgentClient(path).get("/x")
