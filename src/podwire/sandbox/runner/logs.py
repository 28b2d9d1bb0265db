"""Reading containers' logs: files of ``<time> <stream> <F|P> <text>`` lines, from the end, followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from podwire.apiserver.streams import STDERR, STDOUT

POLL = 0.05  # s between looks at a file that is followed
PIECE = 256 << 10


class Wanted(msgspec.Struct, frozen=True):
    """What of a log to show. `since` is an RFC 3339 time in UTC, or empty."""

    follow: bool = False
    tail: int | None = None
    since: str = ""
    timestamps: bool = False
    limit: int | None = None


def since(seconds: int | None, time: str | None, now: float) -> str:
    """The time from which lines are wanted, comparable as text with those in the log."""
    if time:
        return (
            datetime.fromisoformat(time.replace("Z", "+00:00"))
            .astimezone(UTC)
            .strftime("%Y-%m-%dT%H:%M:%S.%f")
        )
    if seconds is not None:
        return datetime.fromtimestamp(now - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return ""


async def lines(path: Path, wanted: Wanted, running: Callable[[], bool]) -> AsyncIterator[tuple[int, bytes]]:
    """(stream, text) of each wanted line; with `follow` until the container has ended."""
    left = wanted.limit
    async for raw in _raw(path, wanted, running):
        stamp, stream, mark, text = _parts(raw)
        if wanted.since and stamp.decode() < wanted.since:
            continue
        shown = (stamp + b" " if wanted.timestamps else b"") + text + (b"\n" if mark == b"F" else b"")
        if left is not None:
            shown, left = shown[:left], left - len(shown)
        yield (STDERR if stream == b"stderr" else STDOUT), shown
        if left is not None and left <= 0:
            return


def _parts(line: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    stamp, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    mark, _, text = rest.partition(b" ")
    return stamp, stream, mark, text


async def _raw(path: Path, wanted: Wanted, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    while wanted.follow and not path.exists() and running():
        await asyncio.sleep(POLL)
    if not path.exists():
        return
    with path.open("rb") as file:
        if wanted.tail is not None:
            file.seek(_start_of_tail(path, wanted.tail))
        rest = b""
        while True:
            over = not running()  # asked before reading: what is written until then is read
            piece = file.read(PIECE)
            if not piece:
                if over or not wanted.follow:
                    return
                await asyncio.sleep(POLL)
                continue
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line


def _start_of_tail(path: Path, count: int) -> int:
    """Offset at which the last `count` lines begin; read backwards in pieces."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        if count <= 0:
            return end
        position, found = end, 0
        while position > 0:
            begin = max(0, position - PIECE)
            file.seek(begin)
            piece = file.read(position - begin)
            at = len(piece) - (1 if position == end else 0)
            while (at := piece.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == count:
                    return begin + at + 1
            position = begin
    return 0
