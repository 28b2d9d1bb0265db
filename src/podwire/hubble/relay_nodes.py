"""The nodes a relay asks: a channel to each, and whether it answers, kept without asking per request.

gRPC tells when a connection comes or goes. It does not tell of an agent that hangs with its connection
open: while somebody follows a node it is also asked for its status now and then, and a node that did
not answer in time is asked until it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any

import grpc
import msgspec

from podwire.api import observer_pb2, relay_pb2
from podwire.base.aio import Backoff, Supervised

# How long a node may take to connect, and to say how it is.
ANSWER_TIMEOUT = 2.0
# How often a node that is followed, or that did not answer, is asked how it is.
PROBE_EVERY = 2.0
log = logging.getLogger(__name__)


class Peer(msgspec.Struct, frozen=True):
    """An agent: `name` as cluster/node, `target` as gRPC names it (unix:///path or host:port).

    With `credentials` (grpc.ChannelCredentials) over TLS, checked against `server_name`.
    """

    name: str
    target: str
    credentials: Any = None
    server_name: str = ""


class State(Enum):
    """Hubble's words for a node; UNKNOWN while it is being connected for the first time."""

    UNKNOWN = relay_pb2.UNKNOWN_NODE_STATE
    CONNECTED = relay_pb2.NODE_CONNECTED
    UNAVAILABLE = relay_pb2.NODE_UNAVAILABLE
    GONE = relay_pb2.NODE_GONE  # no peer any more
    ERROR = relay_pb2.NODE_ERROR  # it answers, but not this


class Refused(Exception):
    """The request is wrong, not the node: another would say the same."""


class Away(Exception):
    """The node does not answer (UNAVAILABLE), or answers with an error (ERROR)."""

    def __init__(self, state: State, problem: str) -> None:
        super().__init__(problem)
        self.state = state


class Node:
    """One peer. Its channel is closed when it is no peer any more and nobody uses it: who reads from a
    closed channel would take that for its own cancellation."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.name = peer.name
        self.state = State.UNKNOWN
        self.problem = ""
        self._channel = _channel(peer)
        self._connection = grpc.ChannelConnectivity.IDLE
        self._broken = 0.0  # since when there is no connection
        self._changed = asyncio.Event()
        self._users = 0
        self._followers = 0
        self._wake = asyncio.Event()

    # --- how it is -------------------------------------------------------------------------------

    async def until(self, *states: State) -> State:
        """Wait for one of these states."""
        while self.state not in states:
            await self._changed.wait()
        return self.state

    async def watch(self) -> None:
        """Keep `state`, until cancelled."""
        failures = 0
        while True:
            try:
                await self._watch()
            except Exception as error:  # one channel's fault must not end the relay of all the others
                failures += 1
                log.exception("watching node %s failed", self.name)
                self._set(State.UNAVAILABLE, str(error))
            await asyncio.sleep(Backoff().after(failures))

    async def _watch(self) -> None:
        self._connection = self._channel.get_state(try_to_connect=True)
        self._broken = asyncio.get_running_loop().time()
        async with Supervised(f"connection to {self.name}") as group:
            group.start("state", self._follow_connection())
            while True:
                self._wake.clear()
                await self._judge()
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_EVERY):
                        await self._wake.wait()

    async def _follow_connection(self) -> None:
        # One wait at a time, never cut short: gRPC keeps each until the state does change.
        while True:
            await self._channel.wait_for_state_change(self._connection)
            if self._connection is grpc.ChannelConnectivity.READY:
                self._broken = asyncio.get_running_loop().time()
            self._connection = self._channel.get_state(try_to_connect=True)
            self._wake.set()

    async def _judge(self) -> None:
        match self._connection:
            case grpc.ChannelConnectivity.READY:
                if self._followers or self.state is not State.CONNECTED:
                    status = await self.status()
                    if isinstance(status, str):
                        self._set(State.UNAVAILABLE, status)
                        return
                self._set(State.CONNECTED)
            case grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                self._set(State.UNAVAILABLE, "not connected")
            case _ if self.state is State.CONNECTED:
                self._set(State.UNAVAILABLE, "the connection broke")
            case _ if asyncio.get_running_loop().time() - self._broken >= ANSWER_TIMEOUT:
                self._set(State.UNAVAILABLE, "no answer while connecting")

    def _set(self, state: State, problem: str = "") -> None:
        if self.state in (state, State.GONE):
            return
        if State.CONNECTED in (self.state, state):
            log.info("node %s: %s %s", self.name, state.name.lower(), problem)
        self.state, self.problem = state, problem
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # --- who uses it -----------------------------------------------------------------------------

    @asynccontextmanager
    async def used(self, *, following: bool = False) -> AsyncIterator[None]:
        """The channel stays open meanwhile; the node is watched closely while somebody follows."""
        self._users += 1
        self._followers += following
        if following:
            self._wake.set()
        try:
            yield
        finally:
            self._users -= 1
            self._followers -= following
            await self._close_if_unused()

    async def leave(self) -> None:
        """It is no peer any more."""
        self._set(State.GONE)
        await self._close_if_unused()

    async def _close_if_unused(self) -> None:
        if self.state is State.GONE and not self._users:
            await self._channel.close(grace=None)

    # --- what it is asked ------------------------------------------------------------------------

    async def flows(
        self, request: Any, take: Callable[[Any], Awaitable[None]], *, patience: float | None = None
    ) -> None:
        """`take` each GetFlowsResponse. Raises Refused, and Away also when one takes over `patience` s."""
        call = self._channel.unary_stream(
            "/observer.Observer/GetFlows",
            request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
            response_deserializer=observer_pb2.GetFlowsResponse.FromString,
        )(request)
        try:
            while True:
                try:
                    async with asyncio.timeout(patience):
                        response = await call.read()
                except grpc.aio.AioRpcError as error:
                    raise _failure(error) from error
                except TimeoutError as error:
                    problem = f"no answer within {patience:g} s"
                    self._set(State.UNAVAILABLE, problem)  # until it says how it is, nobody waits for it
                    self._wake.set()
                    raise Away(State.UNAVAILABLE, problem) from error
                if response is grpc.aio.EOF:
                    return
                await take(response)
        finally:
            call.cancel()

    async def status(self) -> Any:
        """ServerStatusResponse, or why there is none as text."""
        return await self._ask(
            "ServerStatus", observer_pb2.ServerStatusRequest(), observer_pb2.ServerStatusResponse
        )

    async def namespaces(self) -> Any:
        """GetNamespacesResponse, or why there is none as text."""
        return await self._ask(
            "GetNamespaces", observer_pb2.GetNamespacesRequest(), observer_pb2.GetNamespacesResponse
        )

    async def _ask(self, name: str, request: Any, response: Any) -> Any:
        method = self._channel.unary_unary(
            f"/observer.Observer/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        try:
            return await method(request, timeout=ANSWER_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            return error.details() or error.code().name


class Nodes:
    """The peers of a relay, which may change at any time. Use as ``async with``."""

    def __init__(self, peers: Iterable[Peer]) -> None:
        self._wanted = tuple(peers)
        self._nodes: dict[str, Node] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._group = Supervised("relay's nodes")

    async def __aenter__(self) -> Nodes:
        await self._group.__aenter__()
        await self.set(self._wanted)
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self.set(())
        await self._group.__aexit__(*raised)

    def __iter__(self) -> Any:
        return iter(list(self._nodes.values()))

    async def set(self, peers: Iterable[Peer]) -> None:
        """From now on these. A peer that changed is another node under the same name."""
        wanted = {peer.name: peer for peer in peers}
        gone = [node for name, node in self._nodes.items() if wanted.get(name) != node.peer]
        for node in gone:
            del self._nodes[node.name]
        for name, peer in wanted.items():
            if name not in self._nodes:
                self._nodes[name] = Node(peer)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for node in gone:
            watch = self._watches.pop(node.name)
            watch.cancel()
            await asyncio.wait((watch,))
            await node.leave()
        for name, node in self._nodes.items():
            if name not in self._watches:
                self._watches[name] = self._group.once(f"watch {name}", node.watch())

    def changed(self) -> Awaitable[Any]:
        """To be awaited after looking at what is there: until the peers are others than now."""
        return self._changed.wait()

    async def known(self) -> None:
        """Until each is known to answer or not; only nodes that are new make one wait, and not long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                for node in self:
                    await node.until(State.CONNECTED, State.UNAVAILABLE, State.GONE)


def _failure(error: Any) -> Exception:
    problem = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            return Refused(problem)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
            return Away(State.UNAVAILABLE, problem)
        case _:
            return Away(State.ERROR, problem)


def _channel(peer: Peer) -> Any:
    options = [("grpc.max_receive_message_length", 1 << 26), ("grpc.max_reconnect_backoff_ms", 2000)]
    options.append(("grpc.initial_reconnect_backoff_ms", 200))  # an agent is back in less than a second
    options.append(("grpc.enable_http_proxy", 0))  # nodes are reached directly
    if peer.credentials is None:
        return grpc.aio.insecure_channel(peer.target, options)
    if peer.server_name:
        options.append(("grpc.ssl_target_name_override", peer.server_name))  # type: ignore[arg-type]
    return grpc.aio.secure_channel(peer.target, peer.credentials, options)
