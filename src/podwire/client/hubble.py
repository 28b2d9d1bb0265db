"""Door to a Hubble server (an agent's or a relay's): blocking calls for the command line.

Addresses are as `hubble` takes them: host:port, tls://host:port, unix:///path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

# Why a connection fails is a sentence of ours; gRPC's own lines beside it are for who asks for them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from podwire.api import health_pb2, observer_pb2
from podwire.base.errors import InvalidObject, NotFound, NotSupported, PodwireError, Unreachable
from podwire.client.target import Connection, identity, target, why_not

__all__ = ["Connection", "Hubble"]

SERVICE = "hubble.server.Observer"


class Hubble:
    """A connection. Use as a context manager. Errors are PodwireErrors with the server's own words."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._target = target(connection)
        self._identity = identity(connection) if self._target.secure else None
        options = [("grpc.max_receive_message_length", 1 << 26)]
        if connection.server_name:
            options.append(("grpc.ssl_target_name_override", connection.server_name))  # type: ignore[arg-type]
        if self._identity is not None:
            known = self._identity
            credentials = grpc.ssl_channel_credentials(known.roots, known.key, known.certificate)
            self._channel = grpc.secure_channel(self._target.name, credentials, options)
        else:
            self._channel = grpc.insecure_channel(self._target.name, options)

    @property
    def address(self) -> str:
        """As it was given."""
        return self._connection.server

    def __enter__(self) -> Hubble:
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=self._connection.timeout)
        except BaseException as error:
            # Its thread looks at the channel until it is told not to, and fails on one that is closed.
            ready.cancel()
            self._channel.close()
            if not isinstance(error, grpc.FutureTimeoutError):
                raise
            name, dialing = self._connection.server_name, min(1.0, self._connection.timeout)
            raise Unreachable(
                f"no Hubble server answers at {self._connection.server}: "
                + why_not(self._target, self._identity, name, dialing),
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
