"""gRPC for the observers of hubble: where to listen, how services are declared, health.

What `serve` (one node) and `relay` (several) have in common.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import msgspec

import podwire
from podwire.api import health_pb2
from podwire.base.config import AgentConfig
from podwire.base.door import Admission
from podwire.base.errors import ConfigError, StorageError
from podwire.hubble import front

SERVICE = "hubble.server.Observer"
PORT = 4244
VERSION_HEADER = "hubble-server-version"
# The largest request (the longest are long lists of filters), and how many are answered at a time:
# more are refused with RESOURCE_EXHAUSTED. One that follows costs some kB.
REQUEST_BYTES = 1 << 18
REQUESTS = 1000
# A connection by TCP: 100 requests at once, so the share of an address (8 connections) is not all; it ends
# if its TLS handshake takes 10 s, or if it has had no request for 5 minutes.
_BY_TCP = (
    ("grpc.max_concurrent_streams", 100),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
)
log = logging.getLogger(__name__)


class Address(msgspec.Struct, frozen=True):
    """Where to listen: a unix socket, and host:port with TLS. Empty = not there."""

    socket: str = ""
    listen: str = ""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    @classmethod
    def of_agent(cls, config: AgentConfig) -> Address:
        if config.hubble_listen_address and not (config.hubble_tls_cert and config.hubble_tls_key):
            raise ConfigError(
                "hubble-listen-address needs hubble-tls-cert and hubble-tls-key",
                hint="flows tell who talks to whom; they are not served in clear over TCP",
            )
        return cls(
            str(config.hubble_socket),
            config.hubble_listen_address,
            config.hubble_tls_cert,
            config.hubble_tls_key,
            config.hubble_tls_ca,
        )

    @property
    def port(self) -> int:
        port = self.listen.rpartition(":")[2]
        return int(port) if port.isdigit() else PORT


def service(name: str, methods: dict[str, Any]) -> Any:
    return grpc.method_handlers_generic_handler(name, methods)


def unary(method: Callable[..., Any], request: Any) -> Any:
    async def answer(asked: Any, context: Any) -> Any:
        async with _boundary(method, context):
            return await method(asked, context)

    return grpc.unary_unary_rpc_method_handler(answer, request.FromString, _serialize)


def stream(method: Callable[..., Any], request: Any) -> Any:
    """`method` yields the answers (``async def`` with ``yield``), or writes them to the context."""

    async def yields(asked: Any, context: Any) -> AsyncIterator[Any]:
        async with _boundary(method, context), aclosing(method(asked, context)) as answers:
            async for each in answers:
                yield each

    async def writes(asked: Any, context: Any) -> None:
        async with _boundary(method, context):
            await method(asked, context)

    chosen = yields if inspect.isasyncgenfunction(method) else writes
    return grpc.unary_stream_rpc_method_handler(chosen, request.FromString, _serialize)


@asynccontextmanager
async def _boundary(method: Callable[..., Any], context: Any) -> AsyncIterator[None]:
    """A fault in one answer ends this answer, with a sentence to the client and the trace in the log."""
    try:
        yield
    except grpc.aio.AbortError:  # said already what is wrong
        raise
    except grpc.aio.InternalError as error:
        # Nothing can be sent any more: the client is gone, and its call is about to be cancelled.
        raise asyncio.CancelledError from error
    except Exception:
        log.exception("answering %s failed", method.__qualname__)
        await context.abort(grpc.StatusCode.INTERNAL, "podwire failed at this request; its log says where")


def _serialize(message: Any) -> bytes:
    if isinstance(message, bytes):  # made as it travels
        return message
    raw: bytes = message.SerializeToString()
    return raw


async def greet(context: Any, header: str = VERSION_HEADER) -> None:
    """Clients compare versions by this header."""
    await context.send_initial_metadata(((header, podwire.__version__),))


async def no_agent_events(_: Any, context: Any) -> AsyncIterator[Any]:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "podwire has no agent events; see `podwire status`")
    yield


async def no_debug_events(_: Any, context: Any) -> AsyncIterator[Any]:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "podwire has no debug events; see `podwire monitor`")
    yield


def health() -> Any:
    """The health service: serving as long as it answers."""

    async def check(request: Any, context: Any) -> Any:
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service}")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    return service("grpc.health.v1.Health", {"Check": unary(check, health_pb2.HealthCheckRequest)})


async def serve(handlers: list[Any], address: Address, places: Admission | None = None) -> None:
    """Listen and answer until cancelled; StorageError or ConfigError if that cannot be.

    What comes by TCP has a server of its own: however busy that is, the socket answers. `places` are those
    of its clients, for who wants to know how many were refused.
    """
    async with AsyncExitStack() as running:
        # First: who finds the socket may try the port.
        listener = front.listen(address.listen) if address.listen else None
        if listener is not None:
            running.callback(listener.close)
        if address.socket:
            server = _server(handlers)
            _bind_socket(server, address.socket)
            running.callback(Path(address.socket).unlink, missing_ok=True)
            await running.enter_async_context(_started(server))
        if listener is not None:
            directory = running.enter_context(TemporaryDirectory(prefix="podwire-hubble-"))
            path = f"{directory}/tls.sock"
            server = _server(handlers, _BY_TCP)
            _bind_tls(server, path, address)
            await running.enter_async_context(_started(server))
            await running.enter_async_context(front.door(listener, path, places or front.admission()))
        await asyncio.get_running_loop().create_future()


def _server(handlers: list[Any], options: Iterable[tuple[str, int]] = ()) -> Any:
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", REQUEST_BYTES), *options],
        maximum_concurrent_rpcs=REQUESTS,
    )
    server.add_generic_rpc_handlers(tuple(handlers))
    return server


@asynccontextmanager
async def _started(server: Any) -> AsyncIterator[None]:
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace=0.2)


def _bind_socket(server: Any, path: str) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the directory of {path}: {error.strerror}") from error
    # The socket must never have been open to others, not even between bind and chmod.
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise StorageError(f"cannot listen on {path}") from error
    finally:
        os.umask(mask)


def _bind_tls(server: Any, path: str, address: Address) -> None:
    try:
        certificate, key = Path(address.certificate).read_bytes(), Path(address.key).read_bytes()
        client_ca = Path(address.client_ca).read_bytes() if address.client_ca else None
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )
    try:
        server.add_secure_port(f"unix:{path}", credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {address.listen} with {address.certificate}",
            hint="do certificate and key belong together?",
        ) from error
