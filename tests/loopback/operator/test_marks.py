"""The operator and an agent about one identity: what is used stays, whoever has not heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.loopback.kube.apis import both_ways
from tests.loopback.operator.worlds import World, run

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import Unreachable
from podwire.identity.allocate import Allocator
from podwire.identity.prefixes import Prefixes
from podwire.kube.resources import CILIUM_IDENTITIES
from podwire.operator.identities import UnusedIdentities
from podwire.state.tables import EndpointRow, Tables
from podwire.stores.identities import UNUSED, KubeIdentities

LABELS = ("k8s:app=web",)
ENDPOINT = EndpointRow(
    1, "prod", "web", "u", "c", "/n", "lxc1", 1, "", "", "10.0.1.1", "", LABELS, 0, (), "waiting-for-identity"
)


class Agent:
    """The part of an agent that gives endpoints their identities."""

    def __init__(self, world: World) -> None:
        self.tables = Tables()
        prefixes = Prefixes(self.tables, ipv4=True, ipv6=False)
        self.allocator = Allocator(self.tables, prefixes, backoff=Backoff(0.005, 0.05))
        self.store = KubeIdentities(world.api)

    @property
    def number(self) -> int:
        row = self.tables.endpoints.get(1)
        return row.identity if row is not None else 0


def marks(world: World) -> Callable[[], Awaitable[list[Any]]]:
    async def found() -> list[Any]:
        listed = await world.api.list(CILIUM_IDENTITIES)
        return [(one["metadata"].get("annotations") or {}).get(UNUSED) for one in listed]

    return found


@both_ways
def test_the_mark_of_what_is_used_is_taken_away(way: str, tmp_path: Path) -> None:
    """Its CiliumEndpoint is not there, so that the operator cannot know."""

    async def test(world: World) -> None:
        agent, seen = Agent(world), marks(world)
        agent.tables.endpoints.put(ENDPOINT)
        async with cancelling("agent", agent.allocator.run(agent.store)):
            await eventually(lambda: agent.number, timeout=20, what="an identity")
            name = str(agent.number)
            unused = UnusedIdentities(world.api, grace=100.0, clock=world.clock)
            async with world.running(unused) as controllers:
                (work,) = controllers.works
                for _ in range(3):
                    world.now += 101
                    wanted = len(world.changes) + 3  # touched, marked, and the mark taken away
                    await world.touched(work, CILIUM_IDENTITIES, name)
                    await eventually(partial(world.changed, wanted), timeout=20, what="changes")
                    assert await seen() == [None]
                    await eventually(lambda: work.idle, timeout=20, what="rest")
            assert unused.deleted == 0

    run(way, tmp_path, test)


@both_ways
def test_what_was_marked_before_it_is_used_is_used_and_kept(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        agent, seen = Agent(world), marks(world)
        await agent.store.create(4711, LABELS)
        patch = {"metadata": {"annotations": {UNUSED: "some time"}}}
        await world.api.patch(CILIUM_IDENTITIES, "4711", patch)
        failures = [Unreachable("no answer")] * 2
        hold = agent.store.hold

        async def failing(number: int) -> None:
            if failures:
                raise failures.pop()
            await hold(number)

        agent.store.hold = failing  # type: ignore[method-assign]
        async with cancelling("agent", agent.allocator.run(agent.store)):
            await eventually(lambda: agent.allocator.synced, timeout=20, what="the list")
            for _ in range(20):
                await asyncio.sleep(0)
            assert await seen() == ["some time"]  # it is not used here
            agent.tables.endpoints.put(ENDPOINT)

            async def kept() -> bool:
                return agent.number == 4711 and await seen() == [None]

            await eventually(kept, timeout=20, what="the mark to go")
            assert not failures

    run(way, tmp_path, test)


@both_ways
def test_what_was_deleted_all_the_same_is_made_again(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        agent = Agent(world)
        agent.tables.endpoints.put(ENDPOINT)
        async with cancelling("agent", agent.allocator.run(agent.store)):
            await eventually(lambda: agent.number, timeout=20, what="an identity")
            name = str(agent.number)
            uid = (await world.api.get(CILIUM_IDENTITIES, name))["metadata"]["uid"]
            await world.api.delete(CILIUM_IDENTITIES, name)

            async def another() -> bool:
                found = await world.there(CILIUM_IDENTITIES, name)
                return found is not None and found["metadata"]["uid"] != uid

            await eventually(another, timeout=20, what="the same number again")
            await agent.store.hold(60_000)  # nobody knows it: that is no failure

    run(way, tmp_path, test)
