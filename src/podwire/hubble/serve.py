"""The last step up: Hubble's observer, peer and health services over gRPC.

On a unix socket (0600) and, if configured, on TCP with TLS. Answers are made from rows when they
are sent; what is not supported is refused with its name.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np

import podwire
from podwire.api import health_pb2, observer_pb2, peer_pb2, relay_pb2
from podwire.base import addresses
from podwire.base.config import AgentConfig
from podwire.base.errors import ConfigError, InvalidObject, StorageError
from podwire.hubble.flows import Flows
from podwire.hubble.query import Query

SERVICE = "hubble.server.Observer"
PORT = 4244
VERSION_HEADER = "hubble-server-version"
_HOUR = 3600 * 1_000_000_000
_MINUTE = 60 * 1_000_000_000


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


class Server:
    """Serves one node's flows."""

    def __init__(self, flows: Flows, address: Address) -> None:
        self._flows = flows
        self._address = address
        self._started = time.monotonic_ns()
        self.handlers = [
            service(
                "observer.Observer",
                {
                    "GetFlows": stream(self._get_flows, observer_pb2.GetFlowsRequest),
                    "GetAgentEvents": stream(no_agent_events, observer_pb2.GetAgentEventsRequest),
                    "GetDebugEvents": stream(no_debug_events, observer_pb2.GetDebugEventsRequest),
                    "GetNodes": unary(self._get_nodes, observer_pb2.GetNodesRequest),
                    "GetNamespaces": unary(self._get_namespaces, observer_pb2.GetNamespacesRequest),
                    "ServerStatus": unary(self._status, observer_pb2.ServerStatusRequest),
                },
            ),
            service("peer.Peer", {"Notify": stream(self._notify, peer_pb2.NotifyRequest)}),
            health(),
        ]

    async def run(self) -> None:
        """Until cancelled."""
        await serve(self.handlers, self._address)

    # --- observer --------------------------------------------------------------------------------

    async def _get_flows(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await greet(context)
        try:
            query = Query(request, self._flows)
        except InvalidObject as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        async for response in query.responses():
            yield response

    async def _status(self, _: Any, context: Any) -> Any:
        await greet(context)
        return self.status()

    def status(self) -> Any:
        """observer.ServerStatusResponse."""
        store = self._flows.store
        return observer_pb2.ServerStatusResponse(
            num_flows=len(store),
            max_flows=store.capacity,
            seen_flows=store.end,
            uptime_ns=time.monotonic_ns() - self._started,
            version=f"podwire v{podwire.__version__}",
            flows_rate=self._rate(time.time_ns()),
        )

    async def _get_nodes(self, _: Any, context: Any) -> Any:
        await greet(context)
        status = self.status()
        node = observer_pb2.Node(
            name=self._flows.node,
            version=status.version,
            address=self._dialled(self._flows.name),
            state=relay_pb2.NODE_CONNECTED,
            uptime_ns=status.uptime_ns,
            num_flows=status.num_flows,
            max_flows=status.max_flows,
            seen_flows=status.seen_flows,
        )
        node.tls.enabled = bool(self._address.listen)
        node.tls.server_name = self._server_name(self._flows.name)
        return observer_pb2.GetNodesResponse(nodes=[node])

    async def _get_namespaces(self, _: Any, context: Any) -> Any:
        await greet(context)
        flows, store = self._flows, self._flows.store
        mark = np.zeros(len(flows.names.values), dtype=bool)
        since = time.time_ns() - _HOUR
        for _first, columns in store.chunks(store.first, store.end, newest_first=True):
            recent = columns["time"] >= since
            if not recent.any():
                break
            mark[columns["source_party"][recent]] = True
            mark[columns["destination_party"][recent]] = True
        parties = [flows.value(number) for number in np.flatnonzero(mark)]
        found = {(p.cluster or flows.cluster, p.namespace) for p in parties if p is not None and p.namespace}
        return observer_pb2.GetNamespacesResponse(
            namespaces=[
                observer_pb2.Namespace(cluster=cluster, namespace=namespace)
                for cluster, namespace in sorted(found)
            ]
        )

    def _rate(self, now: int) -> float:
        """Flows per second over the last minute, or over the time there are flows of."""
        store = self._flows.store
        since, count, oldest = now - _MINUTE, 0, now
        for _first, columns in store.chunks(store.first, store.end, newest_first=True):
            recent = columns["time"] >= since
            count += int(recent.sum())
            if not recent.all():
                return count / (_MINUTE / 1e9)
            oldest = int(columns["time"].min())
        return count / max((now - oldest) / 1e9, 1.0) if count else 0.0

    # --- peers -----------------------------------------------------------------------------------

    async def _notify(self, _: Any, context: Any) -> AsyncIterator[Any]:
        await greet(context)
        changes = self._flows.tables.nodes.changes()
        try:
            while True:
                for change in await changes.next():
                    kind = (
                        peer_pb2.PEER_DELETED
                        if change.new is None
                        else peer_pb2.PEER_ADDED
                        if change.old is None
                        else peer_pb2.PEER_UPDATED
                    )
                    yield self._peer(str(change.key), change.new or change.old, kind)
        finally:
            changes.close()

    def _peer(self, name: str, row: Any, kind: Any) -> Any:
        notification = peer_pb2.ChangeNotification(
            name=f"{self._flows.cluster}/{name}", address=self._dialled(name, row), type=kind
        )
        if self._address.listen:
            notification.tls.server_name = self._server_name(name)
        return notification

    def _dialled(self, name: str, row: Any = None) -> str:
        """Where a relay reaches the node's observer."""
        if name == self._flows.name and not self._address.listen:
            return f"unix://{self._address.socket}"
        row = row or self._flows.tables.nodes.get(name)
        return addresses.join(row.addresses[0], self._address.port) if row and row.addresses else ""

    def _server_name(self, name: str) -> str:
        node, cluster = name.replace(".", "-"), self._flows.cluster.replace(".", "-")
        return f"{node}.{cluster}.hubble-grpc.cilium.io"


# --- what the relay shares -------------------------------------------------------------------------


def service(name: str, methods: dict[str, Any]) -> Any:
    return grpc.method_handlers_generic_handler(name, methods)


def unary(method: Callable[..., Any], request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(method, request.FromString, _serialize)


def stream(method: Callable[..., Any], request: Any) -> Any:
    return grpc.unary_stream_rpc_method_handler(method, request.FromString, _serialize)


def _serialize(message: Any) -> bytes:
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


async def serve(handlers: list[Any], address: Address) -> None:
    """Listen and answer until cancelled; StorageError or ConfigError if that cannot be."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(handlers))
    if address.socket:
        _bind_socket(server, address.socket)
    if address.listen:
        _bind_tls(server, address)
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(grace=0.2)
        if address.socket:
            Path(address.socket).unlink(missing_ok=True)


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


def _bind_tls(server: Any, address: Address) -> None:
    try:
        certificate, key = Path(address.certificate).read_bytes(), Path(address.key).read_bytes()
        client_ca = Path(address.client_ca).read_bytes() if address.client_ca else None
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )
    try:
        server.add_secure_port(address.listen, credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {address.listen} with {address.certificate}",
            hint="is the address in use, and do certificate and key belong together?",
        ) from error
