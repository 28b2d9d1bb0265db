"""One observer for several nodes: asks each agent, and answers with what they say, sorted by time.

Runs by itself (``python -m podwire.hubble.relay --socket PATH NAME=TARGET …``) or inside another
process (`Relay.run`). A node that does not answer is named in a node status and does not hold up
the others.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import msgspec

import podwire
from podwire.api import observer_pb2, relay_pb2
from podwire.base.aio import Channel, Supervised
from podwire.base.errors import PodwireError
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

VERSION_HEADER = "hubble-relay-version"
ANSWER_TIMEOUT = 2.0
RETRY_AFTER = 2.0
# How long a flow is held back while following, so that nodes' flows can be put in order.
HOLD = 0.25
HELD_AT_MOST = 1000
log = logging.getLogger(__name__)


class Peer(msgspec.Struct, frozen=True):
    """An agent: `name` as cluster/node, `target` as gRPC names it (unix:///path or host:port).

    With `credentials` (grpc.ChannelCredentials) over TLS, checked against `server_name`.
    """

    name: str
    target: str
    credentials: Any = None
    server_name: str = ""


class Relay:
    """Answers for `peers`, which may change at any time (`set_peers`)."""

    def __init__(self, peers: Iterable[Peer], address: Address) -> None:
        self._address = address
        self._started = time.monotonic_ns()
        self._peers: dict[str, Peer] = {}
        self._channels: dict[str, Any] = {}
        self._wanted = {peer.name: peer for peer in peers}
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
        """From now on these; requests that follow go on with those they began with."""
        wanted = {peer.name: peer for peer in peers}
        for name, peer in self._peers.items():
            if wanted.get(name) != peer:
                await self._channels.pop(name).close(grace=None)
        for name, peer in wanted.items():
            if name not in self._channels:
                self._channels[name] = _channel(peer)
        self._peers = wanted

    async def run(self) -> None:
        """Until cancelled."""
        await self.set_peers(self._wanted.values())
        try:
            await serve(self.handlers, self._address)
        finally:
            await self.set_peers(())

    # --- flows -----------------------------------------------------------------------------------

    async def _get_flows(self, request: Any, context: Any) -> None:
        # A coroutine that writes, and not a generator: its tasks must end in the task they began in.
        await greet(context, VERSION_HEADER)
        if request.first and request.follow:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "first: cannot be combined with follow")
        channels = dict(self._channels)
        errors = await self._unreachable(channels)
        connected = [name for name in channels if name not in errors]
        if connected:
            await context.write(_node_status(relay_pb2.NODE_CONNECTED, connected, ""))
        if errors:
            message = next(iter(errors.values()))
            await context.write(_node_status(relay_pb2.NODE_UNAVAILABLE, sorted(errors), message))
        if request.follow:
            await self._follow(request, context, channels, set(errors))
        else:
            await self._merge(request, context, {name: channels[name] for name in connected})

    async def _merge(self, request: Any, context: Any, channels: dict[str, Any]) -> None:
        """What all have stored; each answers in order, so the earliest head is the next."""
        calls = {name: _get_flows(channel)(request) for name, channel in channels.items()}

        async def head(name: str) -> tuple[int, str, Any] | None:
            try:
                response = await calls[name].read()
            except grpc.aio.AioRpcError as error:
                await self._refuse_or_tell(error, name, context)
                return None
            return None if response is grpc.aio.EOF else (_when(response), name, response)

        try:
            heads = await asyncio.gather(*(head(name) for name in calls))
            heap = [each for each in heads if each is not None]
            heapq.heapify(heap)
            while heap:
                _, name, response = heap[0]
                await context.write(response)
                following = await head(name)
                if following is None:
                    heapq.heappop(heap)
                else:
                    heapq.heapreplace(heap, following)
        finally:
            for call in calls.values():
                call.cancel()

    async def _refuse_or_tell(self, error: Any, name: str, context: Any) -> None:
        if error.code() == grpc.StatusCode.INVALID_ARGUMENT:  # the request is wrong, not the node
            await context.abort(error.code(), error.details())
        await context.write(_node_status(relay_pb2.NODE_ERROR, [name], error.details() or ""))

    async def _follow(self, request: Any, context: Any, channels: dict[str, Any], away: set[str]) -> None:
        found: Channel[tuple[int, Any]] = Channel(HELD_AT_MOST)
        try:
            async with Supervised("relay") as group:
                for name, channel in channels.items():
                    group.start(
                        f"follow {name}", self._follow_one(request, name, channel, name in away, found)
                    )
                await _write_sorted(found, context, group)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())

    async def _follow_one(
        self, request: Any, name: str, channel: Any, away: bool, found: Channel[tuple[int, Any]]
    ) -> None:
        """Flows of one node without end; told when it goes away and when it is back."""
        asked = observer_pb2.GetFlowsRequest()
        asked.CopyFrom(request)
        while True:
            try:
                if away:
                    await asyncio.wait_for(channel.channel_ready(), ANSWER_TIMEOUT)
                    await found.send((time.time_ns(), _node_status(relay_pb2.NODE_CONNECTED, [name], "")))
                    away = False
                async for response in _get_flows(channel)(asked):
                    await found.send((_when(response), response))
                    if response.HasField("flow"):
                        # After a break, go on behind the last flow that came.
                        asked.number = 0
                        asked.since.FromNanoseconds(_when(response) + 1)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                log.info("node %s: %s", name, error.details())
            except TimeoutError:
                pass
            if not away:
                away = True
                if not asked.HasField("since"):
                    asked.number = 0
                    asked.since.FromNanoseconds(time.time_ns())
                await found.send((time.time_ns(), _node_status(relay_pb2.NODE_UNAVAILABLE, [name], "")))
            await asyncio.sleep(RETRY_AFTER)

    # --- nodes and statuses ----------------------------------------------------------------------

    async def _unreachable(self, channels: dict[str, Any]) -> dict[str, str]:
        """Name → why, of those that do not answer."""
        statuses = await asyncio.gather(*(_status_of(channel) for channel in channels.values()))
        return {
            name: status for name, status in zip(channels, statuses, strict=True) if isinstance(status, str)
        }

    async def _statuses(self) -> dict[str, Any]:
        """Name → ServerStatusResponse, or the error as text."""
        channels = dict(self._channels)
        found = await asyncio.gather(*(_status_of(channel) for channel in channels.values()))
        return dict(zip(channels, found, strict=True))

    async def _status(self, _: Any, context: Any) -> Any:
        await greet(context, VERSION_HEADER)
        statuses = await self._statuses()
        answered = [status for status in statuses.values() if not isinstance(status, str)]
        away = sorted(name for name, status in statuses.items() if isinstance(status, str))
        total = observer_pb2.ServerStatusResponse(
            num_flows=sum(status.num_flows for status in answered),
            max_flows=sum(status.max_flows for status in answered),
            seen_flows=sum(status.seen_flows for status in answered),
            uptime_ns=max((status.uptime_ns for status in answered), default=0),
            flows_rate=sum(status.flows_rate for status in answered),
            unavailable_nodes=away[:10],
            version=f"podwire relay v{podwire.__version__}",
        )
        total.num_connected_nodes.value = len(answered)
        total.num_unavailable_nodes.value = len(away)
        return total

    async def _get_nodes(self, _: Any, context: Any) -> Any:
        await greet(context, VERSION_HEADER)
        response = observer_pb2.GetNodesResponse()
        for name, status in sorted((await self._statuses()).items()):
            peer = self._peers[name]
            node = response.nodes.add(name=name, address=peer.target)
            node.tls.enabled = peer.credentials is not None
            node.tls.server_name = peer.server_name
            if isinstance(status, str):
                node.state = relay_pb2.NODE_UNAVAILABLE
                continue
            node.state = relay_pb2.NODE_CONNECTED
            node.version, node.uptime_ns = status.version, status.uptime_ns
            node.num_flows, node.max_flows, node.seen_flows = (
                status.num_flows,
                status.max_flows,
                status.seen_flows,
            )
        return response

    async def _get_namespaces(self, _: Any, context: Any) -> Any:
        await greet(context, VERSION_HEADER)
        answers = await asyncio.gather(
            *(
                _quickly(_method(channel, "GetNamespaces", observer_pb2.GetNamespacesResponse))(
                    observer_pb2.GetNamespacesRequest()
                )
                for channel in self._channels.values()
            )
        )
        found = {
            (each.cluster, each.namespace)
            for answer in answers
            if not isinstance(answer, str)
            for each in answer.namespaces
        }
        return observer_pb2.GetNamespacesResponse(
            namespaces=[
                observer_pb2.Namespace(cluster=cluster, namespace=name) for cluster, name in sorted(found)
            ]
        )


async def _write_sorted(found: Channel[tuple[int, Any]], context: Any, group: Supervised) -> None:
    """Write what comes, each held back for a moment, in the order of time."""
    held: list[tuple[int, int, float, Any]] = []
    number = 0

    async def collect() -> None:
        nonlocal number
        async for when, response in found:
            while len(held) > HELD_AT_MOST:  # the client is slow: let the nodes wait too
                await asyncio.sleep(HOLD / 5)
            heapq.heappush(held, (when, number, time.monotonic(), response))
            number += 1

    group.start("collect", collect())
    while True:
        now = time.monotonic()
        while held and (len(held) >= HELD_AT_MOST or now - held[0][2] >= HOLD):
            await context.write(heapq.heappop(held)[3])
        await asyncio.sleep(HOLD / 5)


def _channel(peer: Peer) -> Any:
    options = [("grpc.max_receive_message_length", 1 << 26), ("grpc.max_reconnect_backoff_ms", 2000)]
    options.append(("grpc.enable_http_proxy", 0))  # nodes are reached directly
    if peer.credentials is None:
        return grpc.aio.insecure_channel(peer.target, options)
    if peer.server_name:
        options.append(("grpc.ssl_target_name_override", peer.server_name))  # type: ignore[arg-type]
    return grpc.aio.secure_channel(peer.target, peer.credentials, options)


def _get_flows(channel: Any) -> Any:
    return channel.unary_stream(
        "/observer.Observer/GetFlows",
        request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
        response_deserializer=observer_pb2.GetFlowsResponse.FromString,
    )


def _method(channel: Any, name: str, response: Any) -> Any:
    return channel.unary_unary(
        f"/observer.Observer/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )


async def _status_of(channel: Any) -> Any:
    method = _method(channel, "ServerStatus", observer_pb2.ServerStatusResponse)
    return await _quickly(method)(observer_pb2.ServerStatusRequest())


def _quickly(method: Any) -> Callable[[Any], Awaitable[Any]]:
    """The answer, or why there is none as text."""

    async def ask(request: Any) -> Any:
        try:
            return await method(request, timeout=ANSWER_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            return error.details() or error.code().name

    return ask


def _when(response: Any) -> int:
    return int(response.time.seconds) * 1_000_000_000 + int(response.time.nanos)


def _node_status(state: Any, names: list[str], message: str) -> Any:
    response = observer_pb2.GetFlowsResponse(node_name="relay")
    response.time.FromNanoseconds(time.time_ns())
    response.node_status.state_change = state
    response.node_status.node_names.extend(names)
    response.node_status.message = message
    return response


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
