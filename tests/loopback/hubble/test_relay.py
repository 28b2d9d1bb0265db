"""The relay in front of three nodes: what is stored. Nodes that answer, hang, die, refuse."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.loopback.hubble.conftest import Agent, relaying
from tests.unit.hubble.test_boundaries import complaints

from podwire.api import flow_pb2, observer_pb2
from podwire.hubble import relay_flows, relay_nodes
from podwire.hubble.relay_nodes import Peer

ALL = (1 << 64) - 1


async def serve_all(stack: AsyncExitStack, agents: list[Agent]) -> None:
    for agent in agents:
        await stack.enter_async_context(agent.serving())


def test_flows_of_all_nodes_in_the_order_of_time(agents: list[Agent], tmp_path: Path) -> None:
    agents[0].see(1, 4, 7)
    agents[1].see(2, 5, 8)
    agents[2].see(3, 6, 9)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await serve_all(stack, agents)
            asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
            found, statuses = await asked.all(number=ALL)
            assert found == [(second, f"n{1 + (second - 1) % 3}") for second in range(1, 10)]
            assert statuses == [("CONNECTED", ["n1", "n2", "n3"])]
            status = await asked.status()
            assert (status.num_flows, status.num_connected_nodes.value) == (9, 3)

    asyncio.run(main())


@pytest.mark.parametrize("kept", [relay_flows.KEPT, 1], ids=["kept", "asked twice"])
def test_number_counts_after_merging(
    agents: list[Agent], tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was asked of one node with all flows, is what is answered by three with a third each."""
    monkeypatch.setattr(relay_flows, "KEPT", kept)
    # Most of the newest are of one node; three nodes have flows of the same time.
    agents[0].see(1, 2, 3, 20)
    agents[1].see(4, 20)
    agents[2].see(*range(10, 20), 20)
    everything = sorted([*(1, 2, 3, 20, 4, 20), *range(10, 20), 20])

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await serve_all(stack, agents)
            asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))

            async def seconds(**fields: Any) -> list[float]:
                return [second for second, _ in (await asked.all(**fields))[0]]

            for number in (1, 2, 3, 4, 7, 16, 17, 100, ALL):
                assert await seconds(number=number) == everything[-number:], number
                assert await seconds(number=number, first=True) == everything[:number], number
                assert await seconds(number=number, since=3) == everything[2 : 2 + number], number
                until = observer_pb2.GetFlowsRequest().until
                until.FromNanoseconds(12_000_000_000)
                before = [second for second in everything if second <= 12]
                assert await seconds(number=number, until=until) == before[-number:], number
            # After merging, and after filtering.
            only = [flow_pb2.FlowFilter(node_name=["n1"])]
            assert await seconds(number=2, whitelist=only) == [3, 20]
            assert await seconds(number=2, blacklist=only) == [20, 20]

    asyncio.run(main())


def test_a_refused_request_is_refused_once_and_quietly(
    agents: list[Agent], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await serve_all(stack, agents)
            asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
            wrong = [flow_pb2.FlowFilter(http_status_code=[".."])]
            for fields in ({"number": 9}, {"follow": True}, {"first": True, "number": 1}, {"number": 10_000}):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await asked.all(whitelist=wrong, **fields)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert caught.value.details().startswith("whitelist[0].http_status_code: ")
            assert (await asked.status()).num_connected_nodes.value == 3

    asyncio.run(main())
    assert not complaints(caplog), caplog.text


def test_a_node_that_is_not_there_is_named_and_not_asked_again(agents: list[Agent], tmp_path: Path) -> None:
    agents[0].see(1)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await serve_all(stack, agents[:1])
            black_hole = socket.socket(socket.AF_UNIX)
            stack.callback(black_hole.close)
            black_hole.bind(str(agents[2].socket))
            black_hole.listen()  # takes connections and never says a word
            asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
            for _ in range(3):
                found, statuses = await asked.all(number=ALL)
                assert found == [(1, "n1")]
                assert statuses == [("CONNECTED", ["n1"]), ("UNAVAILABLE", ["n2", "n3"])]
            status = await asked.status()
            assert sorted(status.unavailable_nodes) == ["default/n2", "default/n3"]
            nodes = await asked.ask("GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse)
            assert [node.state for node in nodes.nodes] == [1, 2, 2]
            # Who does not answer is known: no request is sent there, and none waits.
            for node in asked.relay._nodes:
                assert not node._users
            requests = sum([(await asked.all(number=1))[0] == [(1, "n1")] for _ in range(20)])
            assert requests == 20

    asyncio.run(main())


def test_a_node_that_hangs_holds_nobody_up(
    agents: list[Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is connected and says it is well, then falls silent in the middle of its answer."""
    monkeypatch.setattr(relay_flows, "PATIENCE", 0.5)
    monkeypatch.setattr(relay_nodes, "ANSWER_TIMEOUT", 0.5)
    agents[0].see(1, 2, 30)
    agents[1].see(3, 4, 31)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await serve_all(stack, agents[:2])
            asked = None
            async with agents[2].serving():
                asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
                assert (await asked.status()).num_connected_nodes.value == 3
            hung = await stack.enter_async_context(agents[2].hanging(after=2))
            node = next(each for each in asked.relay._nodes if each.name == "default/n3")

            # Hanging from the beginning, it does not say that it is well, and is not asked for flows.
            await node.until(relay_nodes.State.UNAVAILABLE)
            status = node.status

            async def well_until_asked_for_flows() -> Any:
                return await status() if hung.is_set() else observer_pb2.ServerStatusResponse()

            node.status = well_until_asked_for_flows  # type: ignore[method-assign]
            await node.until(relay_nodes.State.CONNECTED)
            found, statuses = await asked.all(number=ALL)
            assert [second for second, _ in found] == [1, 1, 2, 2, 3, 4, 30, 31]
            assert statuses == [("CONNECTED", ["n1", "n2", "n3"]), ("UNAVAILABLE", ["n3"])]
            # It is known now.
            assert (await asked.all(number=1))[1] == [("CONNECTED", ["n1", "n2"]), ("UNAVAILABLE", ["n3"])]

    asyncio.run(main())


def test_peers_that_change_close_no_channel_that_is_read(agents: list[Agent], tmp_path: Path) -> None:
    for agent in agents:
        agent.see(*range(1, 1000))

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await serve_all(stack, agents)
            asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
            call = aiter(asked.flows(number=ALL))
            assert (await anext(call)).HasField("node_status")
            assert (await anext(call)).HasField("flow")
            before = list(asked.relay._nodes)
            await asked.relay.set_peers([agents[0].peer, Peer("default/n2", f"unix:{agents[1].socket}")])
            assert sum([response.HasField("flow") async for response in call]) == 3 * 999 - 1
            gone = [node for node in before if node.state is relay_nodes.State.GONE]
            assert {node.name for node in gone} == {"default/n2", "default/n3"}
            assert not any(node._users for node in before)
            assert (await asked.all(number=1))[1] == [("CONNECTED", ["n1", "n2"])]

    asyncio.run(main())
