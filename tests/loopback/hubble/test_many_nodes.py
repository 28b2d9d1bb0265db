"""The relay in front of fifty nodes, some of which are dead, silent, hanging or slow."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.loopback.hubble.conftest import Agent, Asked, following, relaying
from tests.patience import within

from podwire.api import observer_pb2
from podwire.base.aio import eventually
from podwire.hubble import relay_flows, relay_nodes
from podwire.hubble.relay_flows import Answer
from podwire.hubble.relay_nodes import Node

NODES, EACH = 50, 40
DEAD, SILENT, HANGING, SLOW = range(40, 43), range(43, 46), range(46, 48), range(48, 50)
WELL = range(40)
ALL = (1 << 64) - 1


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes less; fifty servers of one process need some all the same."""
    monkeypatch.setattr(relay_flows, "PATIENCE", 2.0)
    monkeypatch.setattr(relay_flows, "PATIENCE_IN_ALL", 3.0)


@pytest.fixture
def fifty(tmp_path: Path) -> Iterator[list[Agent]]:
    """The flows of the nodes that are well interleave: flow k of node n is of second 1 + k * NODES + n."""
    made = [Agent(f"n{number}", tmp_path, capacity=1 << 10) for number in range(NODES)]
    for number in WELL:
        made[number].see(*(1 + flow * NODES + number for flow in range(EACH)))
    yield made
    for agent in made:
        agent.ring.close()


EVERYTHING = sorted((1 + flow * NODES + number, f"n{number}") for flow in range(EACH) for number in WELL)


@asynccontextmanager
async def served(fifty: list[Agent], run_dir: Path) -> AsyncIterator[Asked]:
    async with AsyncExitStack() as stack:
        for number in WELL:
            await stack.enter_async_context(fifty[number].serving())
        for number in SILENT:  # takes connections and never says a word
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(fifty[number].socket))
            listener.listen()
        for number in HANGING:  # connected, says that it is well, one flow, and no more
            await stack.enter_async_context(fifty[number].hanging(after=1, well=True))
        for number in SLOW:  # each flow in time, and never done
            await stack.enter_async_context(fifty[number].hanging(after=1 << 20, well=True, every=0.5))
        yield await stack.enter_async_context(relaying([each.peer for each in fifty], run_dir))


def names(numbers: range) -> list[str]:
    return sorted(f"n{number}" for number in numbers)


def of_the_well(found: list[tuple[float, str]]) -> list[tuple[float, str]]:
    return [one for one in found if int(one[1].removeprefix("n")) in WELL]


async def unused(asked: Asked) -> None:
    """No request is left at any node: what a client left behind goes with it."""
    await eventually(
        lambda: not any(node._users or node._followers for node in asked.relay._nodes),
        timeout=within(10),
        what="all requests to the nodes to end",
    )


def test_the_last_of_fifty_whoever_does_not_answer(fifty: list[Agent], tmp_path: Path) -> None:
    async def main() -> None:
        async with served(fifty, tmp_path) as asked:
            found, statuses = await asked.all(number=100)
            assert of_the_well(found) == EVERYTHING[-100:] and found == sorted(found, key=lambda one: one[0])
            assert statuses[0] == ("CONNECTED", sorted([*names(WELL), *names(HANGING), *names(SLOW)]))
            assert statuses[1] == ("UNAVAILABLE", sorted([*names(DEAD), *names(SILENT)]))
            late = {name: state for state, told in statuses[2:] for name in told}
            assert late == dict.fromkeys(names(HANGING), "UNAVAILABLE") | dict.fromkeys(names(SLOW), "ERROR")
            first, _ = await asked.all(number=70, first=True)
            assert of_the_well(first) == [one for one in EVERYTHING if one in first]
            assert len(first) == 70 and [second for second, _ in first] == sorted(
                second for second, _ in first
            )
            since, _ = await asked.all(number=ALL, since=1000)
            assert of_the_well(since) == [one for one in EVERYTHING if one[0] >= 1000]
            await unused(asked)

    asyncio.run(main())


def test_following_fifty(fifty: list[Agent], tmp_path: Path) -> None:
    chance = random.Random(3)

    async def main() -> None:
        async with served(fifty, tmp_path) as asked:
            async with following(asked, number=60) as got:
                await got.until(lambda: len(of_the_well(got.flows)) == 60, "the last ones")
                assert of_the_well(got.flows) == EVERYTHING[-60:]
                await eventually(
                    lambda: sum(node._followers for node in asked.relay._nodes) == NODES,
                    timeout=within(10),
                    what="all to be followed",
                )
                come = [(4e9 + number, f"n{number}") for number in WELL]
                for second, name in chance.sample(come, len(come)):
                    fifty[int(name[1:])].see(second)
                await got.until(lambda: set(come) <= set(got.flows), "what came")
                assert len(of_the_well(got.flows)) == 100, "nothing twice"
            await unused(asked)

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{"number": ALL}, {"follow": True}, {"number": 9, "follow": True}])
def test_a_clients_deadline_ends_what_it_asked_for(
    fifty: list[Agent], tmp_path: Path, fields: dict[str, Any]
) -> None:
    async def main() -> None:
        async with served(fifty, tmp_path) as asked:
            await asked.status()
            call = asked.channel.unary_stream(
                "/observer.Observer/GetFlows",
                request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
                response_deserializer=observer_pb2.GetFlowsResponse.FromString,
            )(observer_pb2.GetFlowsRequest(**fields), timeout=1.0)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                [each async for each in call]
            assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await unused(asked)
            assert (await asked.status()).num_connected_nodes.value >= len(WELL)

    asyncio.run(main())


def test_what_is_read_ahead_is_bounded(
    fifty: list[Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much the nodes have: what was read of them and not written yet is bounded per node."""
    for number in WELL:
        fifty[number].see(*(10_000 + flow * NODES + number for flow in range(160)))
    read, written, most = 0, 0, 0
    flows, oldest = Node.flows, Answer._oldest

    async def reading(self: Node, request: Any, take: Callable[[Any], Any], **options: Any) -> None:
        async def counted(response: Any) -> None:
            nonlocal read, most
            read += 1
            most = max(most, read - written)
            await take(response)

        await flows(self, request, counted, **options)

    async def answering(self: Answer, *arguments: Any, **options: Any) -> None:
        write = self._write

        async def counted(response: Any) -> None:
            nonlocal written
            await write(response)
            written += 1

        self._write = counted
        await oldest(self, *arguments, **options)

    monkeypatch.setattr(Node, "flows", reading)
    monkeypatch.setattr(Answer, "_oldest", answering)

    async def main() -> None:
        async with served(fifty, tmp_path) as asked:
            found, _ = await asked.all(number=ALL)
            assert len(of_the_well(found)) == len(WELL) * 200

    asyncio.run(main())
    # Read ahead, one in the hand of each reader, and the next of each on the heap.
    assert 1000 < most <= NODES * (relay_flows.AHEAD + 2)


def test_fifty_that_come_back(fifty: list[Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All die under a follower and come back: each is told once each time, nothing is lost or doubled."""
    monkeypatch.setattr(relay_nodes, "PROBE_EVERY", 0.2)
    well = [fifty[number] for number in range(20)]

    async def main() -> None:
        async with AsyncExitStack() as stack:
            async with AsyncExitStack() as servers:
                for agent in well:
                    await servers.enter_async_context(agent.serving())
                asked = await stack.enter_async_context(relaying([each.peer for each in well], tmp_path))
                got = await stack.enter_async_context(following(asked, number=10))
                await got.until(lambda: len(got.flows) == 10, "the last ones")
            gone = {name for agent in well for name in (agent.name,)}
            await got.until(
                lambda: (
                    {name for state, told in got.statuses if state == "UNAVAILABLE" for name in told} == gone
                ),
                "that all died",
            )
            for number, agent in enumerate(well):
                agent.see(4e9 + number)
            for agent in well:
                await stack.enter_async_context(agent.serving())
            come = {(4e9 + number, agent.name) for number, agent in enumerate(well)}
            await got.until(lambda: come <= set(got.flows), "what was seen meanwhile")
            assert len(got.flows) == 30 and len(set(got.flows)) == 30
            told = [name for state, names in got.statuses[1:] if state == "CONNECTED" for name in names]
            assert sorted(told) == sorted(gone)

    asyncio.run(main())
