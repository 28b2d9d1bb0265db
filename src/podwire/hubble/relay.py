"""One observer for several nodes: asks each agent, and answers with what they say, sorted by time.

Runs by itself (``python -m podwire.hubble.relay --socket PATH NAME=TARGET …``) or inside another
process (`Relay.run`). A node that does not answer is named in a node status and does not hold up
the others (`hubble.relay_nodes`, `hubble.relay_flows`).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

import podwire
from podwire.api import observer_pb2
from podwire.base.errors import PodwireError
from podwire.hubble.relay_flows import Answer
from podwire.hubble.relay_nodes import Node, Nodes, Peer, Refused, State
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

__all__ = ["Peer", "Relay"]

VERSION_HEADER = "hubble-relay-version"
# So many nodes that do not answer are named in a status; the others are counted.
NAMED_AT_MOST = 10


class Relay:
    """Answers for `peers`, which may change at any time (`set_peers`)."""

    def __init__(self, peers: Iterable[Peer], address: Address) -> None:
        self._address = address
        self._nodes = Nodes(peers)
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
            health(),
        ]

    async def set_peers(self, peers: Iterable[Peer]) -> None:
        """From now on these, also for requests that follow. Only while it runs."""
        await self._nodes.set(peers)

    async def run(self) -> None:
        """Until cancelled."""
        async with self._nodes:
            await serve(self.handlers, self._address)

    async def _get_flows(self, request: Any, context: Any) -> None:
        # A coroutine that writes, and not a generator: its tasks must end in the task they began in.
        await greet(context, VERSION_HEADER)
        if request.first and request.follow:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "first: cannot be combined with follow")
        try:
            await Answer(request, self._nodes, context.write).run()
        except Refused as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    # --- nodes and statuses ----------------------------------------------------------------------

    async def _ask(self, question: Callable[[Node], Awaitable[Any]]) -> list[tuple[Node, Any]]:
        """Each node with its answer, or with why there is none as text."""
        await self._nodes.known()

        async def ask(node: Node) -> tuple[Node, Any]:
            if node.state is not State.CONNECTED:
                return node, node.problem or "not connected yet"
            async with node.used():
                return node, await question(node)

        return await asyncio.gather(*map(ask, self._nodes))

    async def _status(self, _: Any, context: Any) -> Any:
        await greet(context, VERSION_HEADER)
        statuses = await self._ask(Node.status)
        answered = [status for _, status in statuses if not isinstance(status, str)]
        away = sorted(node.name for node, status in statuses if isinstance(status, str))
        total = observer_pb2.ServerStatusResponse(
            num_flows=sum(status.num_flows for status in answered),
            max_flows=sum(status.max_flows for status in answered),
            seen_flows=sum(status.seen_flows for status in answered),
            uptime_ns=max((status.uptime_ns for status in answered), default=0),
            flows_rate=sum(status.flows_rate for status in answered),
            unavailable_nodes=away[:NAMED_AT_MOST],
            version=f"podwire relay v{podwire.__version__}",
        )
        total.num_connected_nodes.value = len(answered)
        total.num_unavailable_nodes.value = len(away)
        return total

    async def _get_nodes(self, _: Any, context: Any) -> Any:
        await greet(context, VERSION_HEADER)
        response = observer_pb2.GetNodesResponse()
        for known, status in sorted(await self._ask(Node.status), key=lambda pair: pair[0].name):
            peer = known.peer
            node = response.nodes.add(name=peer.name, address=peer.target)
            node.tls.enabled = peer.credentials is not None
            node.tls.server_name = peer.server_name
            if isinstance(status, str):
                node.state = State.UNAVAILABLE.value
                continue
            node.state = State.CONNECTED.value
            node.version, node.uptime_ns = status.version, status.uptime_ns
            node.num_flows, node.max_flows = status.num_flows, status.max_flows
            node.seen_flows = status.seen_flows
        return response

    async def _get_namespaces(self, _: Any, context: Any) -> Any:
        await greet(context, VERSION_HEADER)
        found = {
            (each.cluster, each.namespace)
            for _, answer in await self._ask(Node.namespaces)
            if not isinstance(answer, str)
            for each in answer.namespaces
        }
        return observer_pb2.GetNamespacesResponse(
            namespaces=[
                observer_pb2.Namespace(cluster=cluster, namespace=name) for cluster, name in sorted(found)
            ]
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="podwire-relay", description="One Hubble observer for several nodes."
    )
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument(
        "peers", nargs="*", metavar="CLUSTER/NODE=TARGET", help="e.g. default/n1=unix:///run/n1/hubble.sock"
    )
    given = parser.parse_args()
    pairs = [each.partition("=") for each in given.peers]
    if any(not name or not target for name, _, target in pairs):
        parser.error("a peer is NAME=TARGET")
    relay = Relay([Peer(name, target) for name, _, target in pairs], Address(socket=given.socket))
    try:
        asyncio.run(relay.run())
    except PodwireError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
