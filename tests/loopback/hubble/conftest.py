"""Agents' observers and a relay, each on a socket of its own in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from podwire.api import flow_pb2, observer_pb2, relay_pb2
from podwire.base.aio import cancelling, eventually
from podwire.base.config import AgentConfig
from podwire.hubble import rpc
from podwire.hubble.pipeline import Pipeline
from podwire.hubble.relay import Relay
from podwire.hubble.relay_nodes import Peer
from podwire.hubble.rpc import Address
from podwire.hubble.serve import Server
from podwire.testing import flows

SECOND = 1_000_000_000


class Agent:
    """One node: a store that the test fills, and the shipped server of it."""

    def __init__(self, name: str, run_dir: Path, capacity: int = 1 << 14) -> None:
        self.name = name
        self.socket = run_dir / f"{name}.sock"
        self.ring = flows.MemoryRing()
        config = AgentConfig(node_name=name, run_dir=str(run_dir), hubble_flow_capacity=capacity)
        self.pipeline = Pipeline(self.ring, self.ring.statistics, flows.tables(), config, name)
        self.pipeline._boot_to_wall = 0  # the times of flows are those that the test says

    @property
    def peer(self) -> Peer:
        return Peer(f"default/{self.name}", f"unix://{self.socket}")

    def see(self, *seconds: float, **fields: Any) -> None:
        """Flows at these times."""
        for second in seconds:
            self.ring.emit(flows.event(time=int(second * SECOND), **fields))
        self.pipeline.drain()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = Server(self.pipeline.flows, Address(socket=str(self.socket)))
        async with cancelling(f"server of {self.name}", server.run()):
            await eventually(self.socket.exists, timeout=10, what="the socket")
            yield

    @asynccontextmanager
    async def hanging(
        self, after: int = 0, *, well: bool = False, every: float = 0
    ) -> AsyncIterator[asyncio.Event]:
        """Instead of the server one that takes every question and says no more than `after` flows, one
        `every` so many seconds. What it yields says whether it was asked for flows. With `well` it says
        that it is."""
        asked = asyncio.Event()
        forever: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def flows(_: Any, context: Any) -> Any:
            asked.set()
            for number in range(after):
                await asyncio.wait((forever,), timeout=every)
                yield response(self.name, number + 1)
            await forever

        async def never(_: Any, context: Any) -> Any:
            await forever

        async def status(_: Any, context: Any) -> Any:
            return observer_pb2.ServerStatusResponse() if well else await forever

        handlers = rpc.service(
            "observer.Observer",
            {
                "GetFlows": rpc.stream(flows, observer_pb2.GetFlowsRequest),
                "GetNamespaces": rpc.unary(never, observer_pb2.GetNamespacesRequest),
                "ServerStatus": rpc.unary(status, observer_pb2.ServerStatusRequest),
            },
        )
        address = Address(socket=str(self.socket))
        async with cancelling(f"{self.name} hangs", rpc.serve([handlers], address)):
            await eventually(self.socket.exists, timeout=10, what="the socket")
            yield asked


def response(name: str, second: float) -> Any:
    made = observer_pb2.GetFlowsResponse(node_name=f"default/{name}", flow=flow_pb2.Flow(node_name=name))
    made.time.FromNanoseconds(int(second * SECOND))
    return made


class Asked:
    """A client of the relay."""

    def __init__(self, relay: Relay, channel: Any) -> None:
        self.relay = relay
        self.channel = channel

    def flows(self, **fields: Any) -> Any:
        since = fields.pop("since", None)
        request = observer_pb2.GetFlowsRequest(**fields)
        if since is not None:
            request.since.FromNanoseconds(int(since * SECOND))
        return self.channel.unary_stream(
            "/observer.Observer/GetFlows",
            request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
            response_deserializer=observer_pb2.GetFlowsResponse.FromString,
        )(request)

    async def all(self, **fields: Any) -> tuple[list[tuple[float, str]], list[tuple[str, list[str]]]]:
        """(second, node) of each flow; (state, nodes) of each status."""
        return told([each async for each in self.flows(**fields)])

    async def ask(self, method: str, request: Any, response: Any) -> Any:
        return await self.channel.unary_unary(
            f"/observer.Observer/{method}", lambda message: message.SerializeToString(), response.FromString
        )(request, timeout=20)

    async def status(self) -> Any:
        return await self.ask(
            "ServerStatus", observer_pb2.ServerStatusRequest(), observer_pb2.ServerStatusResponse
        )


class Following:
    """A request that follows, read by a task; `until` waits for what it must have got."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.got: list[Any] = []

    async def read(self) -> None:
        async for each in self.call:
            self.got.append(each)

    @property
    def flows(self) -> list[tuple[float, str]]:
        return told(self.got)[0]

    @property
    def statuses(self) -> list[tuple[str, list[str]]]:
        return told(self.got)[1]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await eventually(condition, timeout=20, what=f"{what}; so far {self.flows} {self.statuses}")


def told(responses: Iterable[Any]) -> tuple[list[tuple[float, str]], list[tuple[str, list[str]]]]:
    found, statuses = [], []
    for each in responses:
        if each.HasField("flow"):
            found.append((each.time.ToNanoseconds() / SECOND, each.node_name.removeprefix("default/")))
        elif each.HasField("node_status"):
            names = [name.removeprefix("default/") for name in each.node_status.node_names]
            state = relay_pb2.NodeState.Name(each.node_status.state_change).removeprefix("NODE_")
            statuses.append((state, names))
    return found, statuses


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[Agent]]:
    """Three nodes with no flows, whose servers do not run yet."""
    made = [Agent(f"n{number}", tmp_path) for number in (1, 2, 3)]
    yield made
    for agent in made:
        agent.ring.close()


@asynccontextmanager
async def relaying(peers: Iterable[Peer], run_dir: Path) -> AsyncIterator[Asked]:
    """A relay for these peers, and a client of it."""
    socket = run_dir / "relay.sock"
    relay = Relay(peers, Address(socket=str(socket)))
    async with cancelling("relay", relay.run()):
        await eventually(socket.exists, timeout=10, what="the relay's socket")
        async with grpc.aio.insecure_channel(f"unix://{socket}") as channel:
            yield Asked(relay, channel)


@asynccontextmanager
async def following(asked: Asked, **fields: Any) -> AsyncIterator[Following]:
    call = asked.flows(follow=True, **fields)
    made = Following(call)
    async with cancelling("follow", made.read()):
        yield made
        call.cancel()
