"""rtnetlink on one socket: encode messages, send many at once, read answers and dumps.

Written here and not taken from a library because the agent's start and its memory pay for
whatever is imported (pyroute2 0.9: 180 ms and 25 MiB, for the dozen messages podwire sends), and
because a pod is attached with one system call per namespace when messages go out together.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

import msgspec

from podwire.base.errors import NetworkError, lacking
from podwire.net import namespaces

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")
ERROR, DONE = 2, 3
REQUEST, MULTI, ACK, DUMP = 0x1, 0x2, 0x4, 0x300
CREATE, EXCLUSIVE, REPLACE = 0x400, 0x200, 0x100
CAPPED, ACK_TLVS = 0x100, 0x200
NESTED = 0x8000

SOL_NETLINK = 270
NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 11, 12
BATCH = 128  # messages per system call: their acknowledgements must fit the socket's buffer
BUFFER = 1 << 20
PATIENCE = (
    5  # s for an answer; the kernel gives them at once, but for one that is lost we would wait for ever
)
DUMP_INTERRUPTED = 0x10  # what is listed changed while it was listed: some may be missing
DUMP_TRIES = 8


class Message(msgspec.Struct, frozen=True):
    """One request. `what` says it in words for errors; `tolerate` are errnos that mean done already."""

    type: int
    flags: int
    body: bytes
    what: str
    tolerate: tuple[int, ...] = ()


class Failure(NetworkError):
    """The kernel refused a message; `errno` says how."""

    def __init__(self, what: str, number: int, detail: str = "") -> None:
        said = f" ({detail})" if detail else ""
        super().__init__(
            f"{what}: {os.strerror(number)}{said}",
            hint=lacking("CAP_NET_ADMIN") if number == errno.EPERM else None,
        )
        self.errno = number


class Interrupted(Exception):
    """A list changed while the kernel gave it."""


def attribute(kind: int, value: bytes | int | str) -> bytes:
    """One attribute, padded to 4 bytes. Text gets its zero; numbers are u32."""
    if isinstance(value, int):
        value = value.to_bytes(4, "little") if _LITTLE else value.to_bytes(4, "big")
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    length = 4 + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *children: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(children))


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def attributes(body: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes behind a fixed header of `offset` bytes, by kind."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def messages_of(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of one datagram.

    >>> list(messages_of(HEADER.pack(20, 24, 2, 7, 0) + b"body"))
    [(24, 2, 7, b'body')]
    """
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            break  # no kernel says that; to go on would be to stand still
        yield kind, flags, sequence, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


class Socket:
    """A netlink route socket of a namespace (None = the caller's). For one thread at a time."""

    def __init__(self, namespace: str | None = None) -> None:
        self._socket = namespaces.open_socket(
            namespace, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.settimeout(PATIENCE)
        for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def apply(self, messages: Iterable[Message]) -> None:
        """Send all; every one is tried, then the first that failed is raised."""
        failures = [failure for failure in self.attempt(messages) if failure is not None]
        if failures:
            raise failures[0]

    def attempt(self, messages: Iterable[Message]) -> list[Failure | None]:
        """Send all; for each, its failure or None."""
        waiting = list(messages)
        results: list[Failure | None] = []
        for start in range(0, len(waiting), BATCH):
            results += self._attempt(waiting[start : start + BATCH])
        return results

    def _attempt(self, messages: Sequence[Message]) -> list[Failure | None]:
        first = self._sequence + 1
        self._send([(message, REQUEST | ACK | message.flags) for message in messages])
        results: dict[int, Failure | None] = {}
        while len(results) < len(messages):
            for kind, _, sequence, body in self._receive(messages[0].what):
                if kind != ERROR or sequence < first:
                    continue  # an echo, or the rest of an earlier request
                message = messages[sequence - first]
                number = -struct.unpack_from("=i", body)[0]
                done = number == 0 or number in message.tolerate
                results[sequence] = None if done else Failure(message.what, number, _detail(body))
        return [results[first + index] for index in range(len(messages))]

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """(type, body) of everything the kernel lists; asked again where it changed meanwhile."""
        for _ in range(DUMP_TRIES):
            try:
                return list(self._answers(message, REQUEST | DUMP | message.flags))
            except Interrupted:
                continue
        raise Failure(message.what, errno.EINTR, "it changes all the time")

    def get(self, message: Message) -> bytes | None:
        """The body of the one answer; None if the kernel tolerably has none."""
        answers = list(self._answers(message, REQUEST | ACK | message.flags))
        return answers[0][1] if answers else None

    def _answers(self, message: Message, flags: int) -> Iterator[tuple[int, bytes]]:
        self._send([(message, flags)])
        interrupted = False
        while True:
            for kind, flagged, sequence, body in self._receive(message.what):
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flagged & DUMP_INTERRUPTED)
                if kind == DONE:
                    if interrupted:
                        raise Interrupted
                    return
                if kind == ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    if number and number not in message.tolerate:
                        raise Failure(message.what, number, _detail(body))
                    return
                yield kind, body

    def _send(self, messages: list[tuple[Message, int]]) -> None:
        packed = bytearray()
        for message, flags in messages:
            self._sequence += 1
            length = HEADER.size + len(message.body)
            packed += HEADER.pack(length, message.type, flags, self._sequence, 0) + message.body
            packed += bytes(-length % 4)
        try:
            self._socket.send(packed)
        except OSError as error:
            raise Failure(messages[0][0].what, error.errno or errno.EIO, "asking the kernel") from error

    def _receive(self, what: str) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, body) of each message of one datagram.

        Failure if there is none: ENOBUFS says that an answer did not fit and is lost.
        """
        try:
            data = self._socket.recv(BUFFER)
        except OSError as error:
            number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno or errno.EIO
            raise Failure(what, number, "reading the kernel's answer") from error
        yield from messages_of(data)


def _detail(body: bytes) -> str:
    """What the kernel says in words, behind the request it repeats."""
    if len(body) < 4 + HEADER.size:
        return ""
    length = HEADER.unpack_from(body, 4)[0]
    for start in (4 + HEADER.size, 4 + ((length + 3) & ~3)):  # capped, or with the whole request
        text = attributes(body, start).get(1, b"")
        if text.endswith(b"\0") and text[:-1].isascii() and len(text) > 8:
            return text[:-1].decode()
    return ""
