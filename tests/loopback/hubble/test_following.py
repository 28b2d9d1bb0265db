"""The relay while it follows: nodes that die, hang, come back, come new and go; clients that are slow."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.loopback.hubble.conftest import SECOND, Agent, Asked, following, relaying, response

from podwire.base.aio import cancelling, eventually
from podwire.hubble import relay_flows, relay_nodes
from podwire.hubble.relay_nodes import Peer

LATER = 4_000_000_000.0  # after any break, by whatever clock


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes less."""
    monkeypatch.setattr(relay_nodes, "PROBE_EVERY", 0.1)
    monkeypatch.setattr(relay_nodes, "ANSWER_TIMEOUT", 0.5)


async def served(stack: AsyncExitStack, agents: list[Agent], run_dir: Path) -> Asked:
    for agent in agents:
        await stack.enter_async_context(agent.serving())
    return await stack.enter_async_context(relaying([each.peer for each in agents], run_dir))


def test_the_last_of_all_and_then_what_comes(agents: list[Agent], tmp_path: Path) -> None:
    agents[0].see(1, 2, 3)
    agents[1].see(4)
    # The third has none, and a clock that is far behind.

    async def main() -> None:
        async with AsyncExitStack() as stack:
            asked = await served(stack, agents, tmp_path)
            last = await stack.enter_async_context(following(asked, number=2))
            since = await stack.enter_async_context(following(asked, since=2, number=1))
            now = await stack.enter_async_context(following(asked))
            await last.until(lambda: len(last.flows) == 2, "the last two")
            await since.until(lambda: len(since.flows) == 3, "all since then")
            await now.until(lambda: bool(now.statuses), "who is there")
            await eventually(
                lambda: all(node._followers == 3 for node in asked.relay._nodes), timeout=10, what="followers"
            )
            for agent in agents:  # who follows from now on has asked all three
                await eventually(
                    lambda agent=agent: agent.pipeline.store._changed._waiters.__len__() == 3,  # type: ignore[misc]
                    timeout=10,
                    what="all to follow",
                )
            agents[2].see(0.5)
            agents[0].see(5)
            agents[1].see(6)
            come = [(0.5, "n3"), (5, "n1"), (6, "n2")]
            await last.until(lambda: len(last.flows) == 5, "what came")
            await now.until(lambda: len(now.flows) == 3, "what came")
            await since.until(lambda: len(since.flows) == 5, "what came")
            assert last.flows[:2] == [(3, "n1"), (4, "n2")]
            assert sorted(last.flows[2:]) == come and sorted(now.flows) == come
            assert since.flows[:3] == [(2, "n1"), (3, "n1"), (4, "n2")]
            assert sorted(since.flows[3:]) == come[1:], "since was given, and 0.5 is before it"

    asyncio.run(main())


def test_a_node_that_dies_is_told_and_joins_again_without_loss_or_doubles(
    agents: list[Agent], tmp_path: Path
) -> None:
    agents[0].see(1)
    agents[1].see(2)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for agent in (agents[0], agents[2]):
                await stack.enter_async_context(agent.serving())
            async with agents[1].serving():
                asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
                got = await stack.enter_async_context(following(asked, number=100))
                await got.until(lambda: len(got.flows) == 2, "what is stored")
                agents[1].see(3)
                await got.until(lambda: (3, "n2") in got.flows, "what came")
            await got.until(lambda: ("UNAVAILABLE", ["n2"]) in got.statuses, "that it died")
            agents[0].see(4)
            await got.until(lambda: (4, "n1") in got.flows, "that the others go on")
            agents[1].see(5, 6)  # seen while its server was away
            await stack.enter_async_context(agents[1].serving())
            await got.until(lambda: (6, "n2") in got.flows, "what was seen meanwhile")
            agents[1].see(7)
            await got.until(lambda: (7, "n2") in got.flows, "what came")
            assert sorted(got.flows) == [
                (1, "n1"), (2, "n2"), (3, "n2"), (4, "n1"), (5, "n2"), (6, "n2"), (7, "n2"),
            ]  # fmt: skip
            assert got.statuses == [
                ("CONNECTED", ["n1", "n2", "n3"]),
                ("UNAVAILABLE", ["n2"]),
                ("CONNECTED", ["n2"]),
            ]

    asyncio.run(main())


def test_a_node_that_hangs_is_told_and_joins_again(agents: list[Agent], tmp_path: Path) -> None:
    """Its connection stays open, and nothing comes: only asking tells."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for agent in agents[:2]:
                await stack.enter_async_context(agent.serving())
            async with agents[2].serving():
                asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
                got = await stack.enter_async_context(following(asked))
                await got.until(lambda: bool(got.statuses), "who is there")
            async with agents[2].hanging():
                await got.until(lambda: ("UNAVAILABLE", ["n3"]) in got.statuses, "that it hangs")
                agents[0].see(1)
                await got.until(lambda: (1, "n1") in got.flows, "that the others go on")
            await stack.enter_async_context(agents[2].serving())
            await got.until(lambda: got.statuses[-1] == ("CONNECTED", ["n3"]), "that it is back")
            agents[2].see(LATER)
            await got.until(lambda: (LATER, "n3") in got.flows, "what came")

    asyncio.run(main())


def test_hanging_is_noticed_with_the_connection_open(agents: list[Agent], tmp_path: Path) -> None:
    """One server all the time: it answers, then stops answering, then answers again."""
    agent = agents[0]

    async def main() -> None:
        async with AsyncExitStack() as stack:
            asked = await served(stack, [agent], tmp_path)
            got = await stack.enter_async_context(following(asked))
            await got.until(lambda: got.statuses == [("CONNECTED", ["n1"])], "who is there")
            node = next(iter(asked.relay._nodes))
            status = node.status
            answers = asyncio.Event()

            async def hung() -> object:
                return await status() if answers.is_set() else "no answer in time"

            node.status = hung  # type: ignore[method-assign]
            await got.until(lambda: got.statuses[-1] == ("UNAVAILABLE", ["n1"]), "that it hangs")
            answers.set()
            await got.until(lambda: got.statuses[-1] == ("CONNECTED", ["n1"]), "that it is back")
            agent.see(LATER)
            await got.until(lambda: got.flows == [(LATER, "n1")], "what came")

    asyncio.run(main())


def test_peers_that_come_change_and_go(agents: list[Agent], tmp_path: Path) -> None:
    first, second, third = agents

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for agent in agents:
                await stack.enter_async_context(agent.serving())
            asked = await stack.enter_async_context(relaying([first.peer, second.peer], tmp_path))
            got = await stack.enter_async_context(following(asked))
            await got.until(lambda: got.statuses == [("CONNECTED", ["n1", "n2"])], "who is there")
            # One comes, one goes, one has another address.
            moved = Peer("default/n1", f"unix:{first.socket}")
            await asked.relay.set_peers([moved, third.peer])
            await got.until(
                lambda: (
                    sorted(got.statuses[1:])
                    == [("CONNECTED", ["n1"]), ("CONNECTED", ["n3"]), ("GONE", ["n1"]), ("GONE", ["n2"])]
                ),
                "who came and went",
            )
            for agent in (first, third):
                await eventually(
                    lambda agent=agent: agent.pipeline.store._changed._waiters.__len__() == 1,  # type: ignore[misc]
                    timeout=10,
                    what="it to be followed",
                )
            for agent in agents:
                agent.see(1)
            await got.until(lambda: len(got.flows) == 2, "what came")
            assert sorted(got.flows) == [(1, "n1"), (1, "n3")]
            await asked.relay.set_peers([])
            await got.until(
                lambda: sorted(got.statuses[-2:]) == [("GONE", ["n1"]), ("GONE", ["n3"])], "all gone"
            )
            await asked.relay.set_peers([second.peer])
            await got.until(lambda: got.statuses[-1] == ("CONNECTED", ["n2"]), "one again")

    asyncio.run(main())


def test_what_is_held_is_bounded_in_order_and_complete() -> None:
    """A client that takes nothing for a while makes the nodes wait, and then gets everything."""

    async def main() -> None:
        held = relay_flows._Held()
        held.nodes = 2
        written: list[float] = []
        gate = asyncio.Event()

        async def write(each: object) -> None:
            await gate.wait()
            written.append(each.time.ToNanoseconds() / SECOND)  # type: ignore[attr-defined]

        put = 0

        async def send() -> None:
            nonlocal put
            for number in range(5 * relay_flows.HELD_AT_LEAST):
                await held.put(response("n1", number ^ 1))  # neighbours change places
                put += 1

        async with cancelling("write", held.write(write)), cancelling("send", send()) as sending:
            await eventually(lambda: put >= 2 * held.most, timeout=10, what="as much as may be held")
            for _ in range(100):
                await asyncio.sleep(0)
            assert put <= 2 * held.most + 1
            gate.set()
            await sending
            await eventually(lambda: len(written) == put, timeout=20, what="all to be written")
        assert written == sorted(written)

    asyncio.run(main())
