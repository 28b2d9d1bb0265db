"""Door to a Hubble server (an agent's or a relay's): blocking calls for the command line.

Addresses are as `hubble` takes them: host:port, tls://host:port, unix:///path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec

from podwire.api import health_pb2, observer_pb2
from podwire.base.errors import InvalidObject, NotFound, NotSupported, PodwireError, Unreachable, UsageError

SERVICE = "hubble.server.Observer"


class Connection(msgspec.Struct, frozen=True):
    """How to reach the server. Times in seconds; `timeout` is for dialing, `request` for one answer."""

    server: str
    tls: bool = False
    ca_files: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    timeout: float = 5.0
    request: float = 12.0


class Hubble:
    """A connection. Use as a context manager. Errors are PodwireErrors with the server's own words."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.target, secure = _target(connection)
        options = [("grpc.max_receive_message_length", 1 << 26)]
        if connection.server_name:
            options.append(("grpc.ssl_target_name_override", connection.server_name))  # type: ignore[arg-type]
        if secure:
            self._channel = grpc.secure_channel(self.target, _credentials(connection), options)
        else:
            self._channel = grpc.insecure_channel(self.target, options)

    def __enter__(self) -> Hubble:
        try:
            grpc.channel_ready_future(self._channel).result(timeout=self._connection.timeout)
        except grpc.FutureTimeoutError as error:
            self._channel.close()
            raise Unreachable(
                f"no Hubble server answers at {self._connection.server}",
                hint="is the sandbox up? `podwire sandbox env` prints HUBBLE_SERVER; or give --server",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def flows(self, request: Any) -> Iterator[Any]:
        """GetFlowsResponse messages as they come."""
        call = self._channel.unary_stream(
            "/observer.Observer/GetFlows",
            request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
            response_deserializer=observer_pb2.GetFlowsResponse.FromString,
        )
        try:
            yield from call(request)
        except grpc.RpcError as error:
            raise _error(error) from error

    def status(self) -> Any:
        """observer.ServerStatusResponse."""
        return self._ask(
            "ServerStatus", observer_pb2.ServerStatusRequest(), observer_pb2.ServerStatusResponse
        )

    def nodes(self) -> Any:
        """observer.GetNodesResponse."""
        return self._ask("GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse)

    def namespaces(self) -> Any:
        """observer.GetNamespacesResponse."""
        return self._ask(
            "GetNamespaces", observer_pb2.GetNamespacesRequest(), observer_pb2.GetNamespacesResponse
        )

    def healthy(self) -> str:
        """Name of the serving status: SERVING when all is well."""
        answer = self._call(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest(service=SERVICE),
            health_pb2.HealthCheckResponse,
        )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def _ask(self, method: str, request: Any, response: Any) -> Any:
        return self._call(f"/observer.Observer/{method}", request, response)

    def _call(self, path: str, request: Any, response: Any) -> Any:
        call = self._channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        try:
            return call(request, timeout=self._connection.request)
        except grpc.RpcError as error:
            raise _error(error) from error


def _target(connection: Connection) -> tuple[str, bool]:
    """gRPC's name of the server, and whether to use TLS."""
    server = connection.server
    if server.startswith("tls://"):
        return server.removeprefix("tls://"), True
    secure = connection.tls or bool(connection.certificate)
    return server, secure


def _credentials(connection: Connection) -> Any:
    if bool(connection.certificate) != bool(connection.key):
        raise UsageError("--tls-client-cert-file and --tls-client-key-file belong together")
    try:
        roots = b"\n".join(Path(path).read_bytes() for path in connection.ca_files) or None
        certificate = Path(connection.certificate).read_bytes() if connection.certificate else None
        key = Path(connection.key).read_bytes() if connection.key else None
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(roots, key, certificate)


def _error(error: Any) -> PodwireError:
    code, details = error.code(), error.details()
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidObject("", details)
        case grpc.StatusCode.UNIMPLEMENTED:
            return NotSupported(details)
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(details)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(f"the Hubble server does not answer: {details}")
        case _:
            return PodwireError(f"the Hubble server says: {details} ({code.name})")
