"""What the kernel's side of a netlink socket may do: lose an answer, say nothing, change while it lists."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

from podwire.base.errors import NetworkError
from podwire.net import netlink
from podwire.net.netlink import DONE, DUMP_INTERRUPTED, HEADER, Failure, Message, Socket

LIST = Message(18, 0, b"\0" * 16, "list links")


class KernelSide:
    """Answers in turn: bytes are received, errors are raised."""

    def __init__(self, answers: Iterator[bytes | OSError]) -> None:
        self.answers = answers
        self.sent = 0

    def send(self, data: bytes) -> int:
        self.sent += 1
        return len(data)

    def recv(self, size: int) -> bytes:
        answer = next(self.answers)
        if isinstance(answer, OSError):
            raise answer
        return answer


def talking(*answers: bytes | OSError) -> Socket:
    made = Socket.__new__(Socket)
    made._socket = KernelSide(iter(answers))  # type: ignore[assignment]
    made._sequence = 0
    return made


def told(kind: int, sequence: int, body: bytes = b"", flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOBUFS, "no"), errno.ENOBUFS),
        (TimeoutError("timed out"), errno.ETIMEDOUT),
    ],
    ids=["an answer is lost", "no answer"],
)
@pytest.mark.parametrize("call", ["dump", "get", "apply"])
def test_no_answer_is_an_error_that_has_a_name(error: OSError, said: int, call: str) -> None:
    with pytest.raises(NetworkError) as raised:
        getattr(talking(error), call)([LIST] if call == "apply" else LIST)
    assert isinstance(raised.value, Failure) and raised.value.errno == said
    assert "list links" in str(raised.value)


def test_a_list_that_changed_meanwhile_is_asked_for_again() -> None:
    half = told(16, 1, b"half", DUMP_INTERRUPTED) + told(DONE, 1, struct.pack("=i", 0), DUMP_INTERRUPTED)
    whole = told(16, 2, b"full") + told(16, 2, b"more") + told(DONE, 2, struct.pack("=i", 0))
    assert talking(half, whole).dump(LIST) == [(16, b"full"), (16, b"more")]


def test_a_list_that_always_changes_is_given_up() -> None:
    answers = [told(DONE, number, b"\0" * 4, DUMP_INTERRUPTED) for number in range(1, 100)]
    socket = talking(*answers)
    with pytest.raises(Failure, match="changes all the time"):
        socket.dump(LIST)
    assert socket._sequence == netlink.DUMP_TRIES


def test_the_kernels_own_list_is_whole() -> None:
    with Socket() as real:
        assert real.dump(LIST)


def test_a_length_that_no_header_has_ends_the_reading() -> None:
    """To go on from it would be to stand still."""
    whole = netlink.HEADER.pack(20, 24, 2, 7, 0) + b"body"
    for length in (0, 1, netlink.HEADER.size - 1):
        broken = netlink.HEADER.pack(length, 24, 2, 8, 0)
        assert list(netlink.messages_of(whole + broken + whole)) == [(24, 2, 7, b"body")]
