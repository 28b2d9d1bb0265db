"""The last step up: Hubble's observer, peer and health services over gRPC.

On a unix socket (0600) and, if configured, on TCP with TLS. Answers are made from rows when they
are sent; what is not supported is refused with its name.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np

import podwire
from podwire.api import observer_pb2, peer_pb2, relay_pb2
from podwire.base import addresses
from podwire.base.errors import InvalidObject
from podwire.hubble import front
from podwire.hubble.flows import Flows
from podwire.hubble.query import Query
from podwire.hubble.rpc import (
    Address,
    greet,
    health,
    no_agent_events,
    no_debug_events,
    serve,
    service,
    stream,
    unary,
)
from podwire.model.cluster import OWN

_HOUR = 3600 * 1_000_000_000
_MINUTE = 60 * 1_000_000_000


class Server:
    """Serves one node's flows."""

    def __init__(self, flows: Flows, address: Address) -> None:
        self._flows = flows
        self._address = address
        self.places = front.admission()
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
        await serve(self.handlers, self._address, self.places)

    # --- observer --------------------------------------------------------------------------------

    async def _get_flows(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        try:
            # Before the greeting: who has that, and follows, gets what happens from then on.
            query = Query(request, self._flows)
        except InvalidObject as error:
            await greet(context)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        await greet(context)
        async for response in query.encoded():
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
        node.tls.server_name = _server_name(self._flows.name, self._flows.cluster)
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
                    yield self._peer(change.new or change.old, kind)
        finally:
            changes.close()

    def _peer(self, row: Any, kind: Any) -> Any:
        cluster = row.cluster or self._flows.cluster
        notification = peer_pb2.ChangeNotification(
            name=f"{cluster}/{row.name}", address=self._dialled(row.name, row), type=kind
        )
        if self._address.listen:
            notification.tls.server_name = _server_name(row.name, cluster)
        return notification

    def _dialled(self, name: str, row: Any = None) -> str:
        """Where a relay reaches the node's observer."""
        own = name == self._flows.name and (row is None or row.cluster == OWN)
        if own and not self._address.listen:
            return f"unix://{self._address.socket}"
        row = row or self._flows.tables.nodes.get((OWN, name))
        return addresses.join(row.addresses[0], self._address.port) if row and row.addresses else ""


def _server_name(node: str, cluster: str) -> str:
    """What the certificate of a node's observer is for."""
    return f"{node.replace('.', '-')}.{cluster.replace('.', '-')}.hubble-grpc.cilium.io"
