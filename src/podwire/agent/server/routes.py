"""What all handlers of the socket share: the node, reading what a client sent, an answer's form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from podwire.agent.interface import Node
from podwire.base.errors import InvalidObject

T = TypeVar("T")
NODE: web.AppKey[Node] = web.AppKey("node", Node)


class Answer(NamedTuple):
    """A value to be sent as JSON (or, `plain`, as text). An iterator is sent as a list while it is gone
    through: there may be very many rows, and each is made when the client has taken those before."""

    value: Any
    status: int = 200
    plain: bool = False


Work = Callable[[Node, web.Request], Awaitable[Answer]]
Route = tuple[str, str, Work]


async def body(request: web.Request, shape: type[T]) -> T:
    """The JSON body as `shape`; InvalidObject says what is wrong with it. Other members are ignored."""
    try:
        raw = await request.read()
    except ConnectionError as error:
        raise InvalidObject("", "the body ended before its length") from error
    try:
        return msgspec.json.decode(raw or b"{}", type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidObject("", f"the body is not as expected: {error}") from error


def number(text: str, what: str, most: int) -> int:
    """A decimal number of a path, 0..`most`."""
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > most:
        raise InvalidObject("", f"{what} must be a number from 0 to {most}, not {text[:40]!r}")
    return int(text)
