"""Answers that may be long: a list is sent while it is made, so nobody waits for all of it.

The next rows are made when the client has taken those before. Between some and the next others run, and
what is in memory are the rows under way. A list that could not be ended is not closed: no client takes
part of it for the whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from podwire.agent.interface import DUMPS
from podwire.agent.server.routes import NODE
from podwire.base.errors import NotFound, PodwireError
from podwire.state.selections import ReadSelections
from podwire.state.table import ReadTable

log = logging.getLogger(__name__)

STREAMS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("streams", set)
SLICE = 0.005  # s that rows are made for before others run
AT_ONCE = 128  # rows that are sent at once at most

Blocks = AsyncIterator[Sequence[Any]]


class Form(NamedTuple):
    """How rows become JSON: what each is, and what stands around them."""

    of: Callable[[Any], Any]
    head: bytes
    tail: bytes


# One row a line: a client can take line by line, or the whole as one list.
AS_THEY_ARE = Form(lambda row: row, b"[", b"]\n")


async def send(request: web.Request, blocks: Blocks, form: Form) -> web.StreamResponse:
    """Send the rows of all blocks. What fails before the first of them is an answer of its own."""
    open_ended(request)
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    before = form.head + b"\n"
    async with aclosing(blocks):  # type: ignore[type-var]  # they are generators, which mypy cannot know
        some = await anext(blocks, None)
        await answer.prepare(request)
        try:
            while some is not None:
                for start in range(0, len(some), AT_ONCE):
                    lines = [_encoded(form.of(row)) for row in some[start : start + AT_ONCE]]
                    await answer.write(before + b",\n".join(lines))
                    before = b",\n"
                    await asyncio.sleep(0)  # a write waits only for a client that is behind
                some = await anext(blocks, None)
            await answer.write((b"\n" if before == b",\n" else before) + form.tail)
        except ConnectionError:
            pass  # the client left
        except PodwireError as error:
            log.warning("%s: %s", request.path, error)
            answer.force_close()
    return answer


def _encoded(row: Any) -> bytes:
    return msgspec.json.encode(row, enc_hook=str)


async def sliced(items: Iterator[Any]) -> Blocks:
    """Made in the loop, for what only the loop may look at."""
    clock = asyncio.get_running_loop().time
    some: list[Any] = []
    until = clock() + SLICE
    for item in items:
        some.append(item)
        if clock() >= until or len(some) >= AT_ONCE:
            yield some
            some, until = [], clock() + SLICE
    yield some


def dumped(request: web.Request) -> Blocks:
    """The rows of the map that the request names. NotFound if there is none."""
    name = request.match_info["name"]
    if name not in DUMPS:
        raise NotFound(f"there is no map {name[:60]}", hint=f"there are {', '.join(DUMPS)}")
    return request.app[NODE].bpf_dump(name, request.query)


def rows(table: ReadTable[Any] | ReadSelections) -> Iterable[Any]:
    """All rows; sets with many members are copied one by one, as they are looked at."""
    if not isinstance(table, ReadSelections):
        return table
    keys: list[Any] = table.keys()
    return (row for key in keys if (row := table.get(key)) is not None)


def open_ended(request: web.Request) -> None:
    """The answer to this request has no end of its own, or none soon."""
    task = asyncio.current_task()
    assert task is not None  # a handler always runs in one
    streams = request.app[STREAMS]
    streams.add(task)
    task.add_done_callback(streams.discard)


async def end_streams(app: web.Application) -> None:
    """Without this, stopping the agent would wait for them."""
    for task in app[STREAMS]:
        task.cancel()
