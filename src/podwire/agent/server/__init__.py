"""The agent's local socket: HTTP and JSON on Cilium's paths, for root alone.

`listening` serves a `Node` while its block runs. The socket is made with mode 0600 beside its
place and then moved there, so that it is never open to others, not even for a moment; who connects
is asked of the kernel as well (SO_PEERCRED).

What a client sends can be wrong in any way: it gets 4xx and a sentence. 5xx means that the agent
itself, the kernel or the API has failed.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import msgspec
from aiohttp import web

from podwire.agent.interface import Node
from podwire.agent.server import calls, lists, own
from podwire.agent.server.routes import NODE, Answer
from podwire.base.errors import (
    ApiError,
    ConfigError,
    Conflict,
    InvalidObject,
    NotFound,
    NotPermitted,
    NotSupported,
    PodwireError,
    StorageError,
    Unreachable,
    UsageError,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# What sends its answer bit by bit.
STREAMED: list[tuple[str, Handler]] = [
    ("/v1/map/{name}", calls.one_map),
    ("/podwire/v1/bpf/{name}", own.dump),
    (own.MONITOR, own.monitor),
]
STATUS: list[tuple[type[PodwireError], int]] = [
    (NotFound, 404),
    (Conflict, 409),
    (NotPermitted, 403),
    (NotSupported, 422),
    (InvalidObject, 400),
    (UsageError, 400),
    (ConfigError, 400),
    (ApiError, 502),
    (Unreachable, 503),
]


@asynccontextmanager
async def listening(node: Node, path: Path) -> AsyncIterator[None]:
    """Serve `node` on the unix socket `path`. Conflict if another agent answers there."""
    runner = web.AppRunner(application(node), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listener = bind(path)
        made = path.stat().st_ino
        await web.SockSite(runner, listener).start()
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                if path.stat().st_ino == made:  # a successor may have put its own there
                    path.unlink()
    finally:
        await runner.cleanup()


def application(node: Node) -> web.Application:
    """The routes over one node."""
    app = web.Application(middlewares=[errors, only_root], client_max_size=1 << 20)
    app[NODE] = node
    app[lists.STREAMS] = set()
    app.on_shutdown.append(lists.end_streams)
    app.add_routes(
        [web.route(method, at, _answering(work)) for method, at, work in calls.ROUTES + own.ROUTES]
    )
    app.add_routes([web.get(at, work) for at, work in STREAMED])
    return app


def all_routes() -> list[tuple[str, str, Callable[..., object]]]:
    """(method, path, handler) of everything the socket answers, for the reference documentation."""
    plain = [(method, at, work) for method, at, work in calls.ROUTES + own.ROUTES]
    return [*plain, *(("GET", at, work) for at, work in STREAMED)]


def bind(path: Path) -> socket.socket:
    """A listening socket at `path` that only root may open, put there in one step."""
    if _answers(path):
        raise Conflict(f"another agent listens on {path}", hint="stop it first, or choose another run-dir")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        beside.unlink(missing_ok=True)
        os.fchmod(listener.fileno(), 0o600)  # the file gets the mode its socket has
        listener.bind(str(beside))
        beside.chmod(0o600)
        listener.listen(128)
        beside.rename(path)
    except OSError as error:
        listener.close()
        with suppress(OSError):
            beside.unlink()
        raise StorageError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _answering(work: Callable[[Node, web.Request], Awaitable[Answer]]) -> Handler:
    """Make a handler of what returns a value."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = await work(request.app[NODE], request)
        if isinstance(answer.value, Iterator):
            return await lists.send(request, lists.sliced(answer.value), lists.AS_THEY_ARE)
        if isinstance(answer.value, str) and answer.plain:
            return web.Response(status=answer.status, text=answer.value)
        body = b"" if answer.value is None else msgspec.json.encode(answer.value, enc_hook=str)
        return web.Response(status=answer.status, body=body, content_type="application/json")

    return handler


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure is a JSON string, as Cilium's clients expect, with a hint in a header."""
    try:
        return await handler(request)
    except PodwireError as error:
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
        if status >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
        return _failure(status, str(error), error.hint)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _failure(error.status, _sentence(error, request), None)


def _sentence(error: web.HTTPException, request: web.Request) -> str:
    match error.status:
        case 404:
            return f"there is nothing at {request.path}"
        case 405:
            return f"{request.path} cannot be asked with {request.method}"
        case _:
            return error.text or error.reason


def _failure(status: int, sentence: str, hint: str | None) -> web.Response:
    headers = {"Podwire-Hint": quote(hint)} if hint else {}
    return web.Response(
        status=status, body=msgspec.json.encode(sentence), content_type="application/json", headers=headers
    )


@web.middleware
async def only_root(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The mode of the file keeps others out; this holds also for a descriptor that was passed on."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is not None and connection.family == socket.AF_UNIX:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", raw)
        if uid not in (0, os.geteuid()):
            raise NotPermitted(f"user {uid} may not talk to the agent: only root may")
    return await handler(request)
