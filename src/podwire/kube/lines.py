"""The body of a watch's answer as lines, however the network cut it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from podwire.base.errors import Unreachable

_SILENCE = 90.0  # seconds; bookmarks come more often, so a connection silent for longer is dead
_LARGEST = 64 * 1024 * 1024
_SLICE = 64  # lines given before others have a turn


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines as they come, so much at a time that other tasks have a turn."""
    rest: list[bytes] = []  # of a line that has not ended: joined once, when it has
    length = 0
    while True:
        # Not wait_for: before Python 3.12 that loses a cancellation that comes together with the data.
        async with asyncio.timeout(_SILENCE):
            chunk = await response.content.readany()
        if not chunk:
            return
        first, *lines = chunk.split(b"\n")
        rest.append(first)
        length += len(first)
        if length > _LARGEST:
            raise Unreachable("the Kubernetes API sent an event of more than 64 MiB")
        if not lines:
            continue
        *whole, last = [b"".join(rest), *lines]
        rest, length = [last], len(last)
        for number, line in enumerate(whole):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            if line.strip():
                yield line
