"""Labels to numbers: deterministic, agreed on by nodes, with collisions and an API that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import Unreachable
from podwire.identity import allocate
from podwire.identity.allocate import Allocator, preferred
from podwire.identity.prefixes import Prefixes
from podwire.model.cluster import DEFAULT
from podwire.model.identity import RESERVED
from podwire.model.labels import Labels
from podwire.state.tables import EndpointRow, IdentityRow, Tables
from podwire.stores.identities import Event, Known, MemoryIdentities, Synced
from podwire.testing.walk import Walk

NUMBERS = DEFAULT.numbers
WEB, DB = Walk.labels({"app": "web"}), Walk.labels({"app": "db"})


def allocator() -> Allocator:
    tables = Tables()
    found = Allocator(tables, Prefixes(tables, ipv4=True, ipv6=False), backoff=Backoff(0.001, 0.002))
    for table in (tables.policies, tables.slices, tables.nodes):
        table.mark_all_ready()
    return found


def endpoint(tables: Tables, number: int, labels: Labels) -> None:
    walk = Walk()
    row = walk.endpoint(number, f"pod{number}", {})
    tables.endpoints.put(
        EndpointRow(**{name: getattr(row, name) for name in row.__struct_fields__} | {"labels": labels})
    )


def number(tables: Tables, endpoint: int) -> int:
    row = tables.endpoints.get(endpoint)
    assert row is not None
    return row.identity


def test_a_number_is_of_the_clusters_range_and_stays() -> None:
    assert preferred(WEB) in NUMBERS
    assert preferred(WEB) == preferred(WEB) != preferred(DB)


def test_reserved_identities_are_there_from_the_start() -> None:
    found = allocator().tables.identities
    assert {row.number for row in found} == {one.number for one in RESERVED}


def test_endpoints_are_numbered_and_renumbered() -> None:
    async def scenario() -> None:
        one, store = allocator(), MemoryIdentities()
        endpoint(one.tables, 1, WEB)
        endpoint(one.tables, 2, WEB)
        async with cancelling("allocate", one.run(store)):
            await eventually(lambda: number(one.tables, 2), timeout=5, what="an identity")
            assert number(one.tables, 1) == number(one.tables, 2) == preferred(WEB)
            endpoint(one.tables, 2, DB)
            await eventually(lambda: number(one.tables, 2) == preferred(DB), timeout=5, what="another one")
            assert store.known == {preferred(WEB): WEB, preferred(DB): DB}
            assert one.tables.identities.ready

    asyncio.run(scenario())


def test_two_nodes_agree() -> None:
    async def scenario() -> None:
        store = MemoryIdentities()
        nodes = [allocator(), allocator()]
        for node in nodes:
            endpoint(node.tables, 1, WEB)
        async with cancelling("one", nodes[0].run(store)), cancelling("two", nodes[1].run(store)):
            for node in nodes:
                await eventually(lambda node=node: number(node.tables, 1), timeout=5, what="an identity")  # type: ignore[misc]
        assert number(nodes[0].tables, 1) == number(nodes[1].tables, 1)
        assert len(store.known) == 1

    asyncio.run(scenario())


def test_a_number_other_labels_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocate, "preferred", lambda labels, numbers: numbers[-1])

    async def scenario() -> None:
        one, store = allocator(), MemoryIdentities()
        store.take(NUMBERS[-1], DB)
        made = await one.create(store, WEB)
        assert (made.number, made.labels) == (NUMBERS[0], WEB)  # round the corner
        assert (await one.create(store, DB)).number == NUMBERS[-1]

    asyncio.run(scenario())


def test_of_two_numbers_for_the_same_labels_the_lower_counts() -> None:
    one = allocator()
    one.apply(Known(400, WEB))
    one.apply(Known(300, WEB))
    assert one.number_of(WEB) == 300


class Away(MemoryIdentities):
    """A store that does not answer the first times."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def create(self, number: int, labels: Labels) -> Labels | None:
        if self.failures:
            self.failures -= 1
            raise Unreachable("the API does not answer")
        return self.take(number, labels)


def test_while_the_store_is_away_it_is_tried_again() -> None:
    async def scenario() -> None:
        one, store = allocator(), Away(3)
        endpoint(one.tables, 1, WEB)
        async with cancelling("allocate", one.run(store)):
            await eventually(lambda: one.errors or number(one.tables, 1), timeout=5, what="a try")
            await eventually(lambda: number(one.tables, 1), timeout=5, what="an identity")
            assert not one.errors

    asyncio.run(scenario())


class Broken(MemoryIdentities):
    """A store whose watch breaks after a while; meanwhile identities come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = 0

    async def watch(self) -> AsyncIterator[Event]:
        self.watched += 1
        if self.watched == 1:
            yield Known(300, WEB)
            yield Known(301, DB)
            yield Synced()
            raise Unreachable("the API went away")
        yield Known(301, DB)
        yield Synced()
        await asyncio.Event().wait()


def test_what_vanished_while_nobody_watched_is_gone() -> None:
    async def scenario() -> None:
        one, store = allocator(), Broken()
        async with cancelling("allocate", one.run(store)):
            await eventually(lambda: store.watched == 2, timeout=5, what="the second watch")
            await eventually(lambda: 300 not in one.tables.identities, timeout=5, what="300 to go")
            assert 301 in one.tables.identities

    asyncio.run(scenario())


def test_new_label_sets_are_asked_for_side_by_side() -> None:
    """A store that answers nobody before sixteen have asked would never answer who asks one by one."""

    class Slow(MemoryIdentities):
        def __init__(self) -> None:
            super().__init__()
            self.asked = 0
            self.enough = asyncio.Event()

        async def create(self, number: int, labels: Labels) -> Labels | None:
            self.asked += 1
            if self.asked == allocate.AT_ONCE:
                self.enough.set()
            await self.enough.wait()
            return self.take(number, labels)

    async def scenario() -> None:
        one, store = allocator(), Slow()
        for place in range(1, 41):
            endpoint(one.tables, place, Walk.labels({"app": f"a{place}"}))
        async with cancelling("allocate", one.run(store)):
            await eventually(
                lambda: all(row.identity for row in one.tables.endpoints), timeout=20, what="all numbers"
            )
        assert len(store.known) == 40 and not one.errors

    asyncio.run(scenario())


def test_a_number_that_stands_for_other_labels_now_leaves_the_endpoints_it_had() -> None:
    walk = Walk()
    walk.tables.identities.put(IdentityRow(300, WEB, "cluster"))
    endpoint(walk.tables, 1, WEB)
    walk.settle()
    assert number(walk.tables, 1) == 300
    walk.tables.identities.put(IdentityRow(300, DB, "cluster"))
    walk.settle()
    assert number(walk.tables, 1) == preferred(WEB)


def test_what_is_expected_has_its_number_before_its_endpoint_comes() -> None:
    async def scenario() -> None:
        one, store = allocator(), MemoryIdentities()
        store.take(preferred(DB), DB)
        one.expect(WEB)  # before the cluster's are known
        async with cancelling("allocate", one.run(store)):
            await eventually(lambda: one.number_of(WEB), timeout=5, what="the number")
            one.expect(WEB)
            one.expect(DB)
            assert not one.tables.endpoints
            endpoint(one.tables, 1, WEB)
            await eventually(lambda: number(one.tables, 1) == preferred(WEB), timeout=5, what="an identity")
        assert store.known == {preferred(DB): DB, preferred(WEB): WEB}

    asyncio.run(scenario())


def test_what_is_expected_in_vain_holds_up_nobody() -> None:
    async def scenario() -> None:
        one, store = allocator(), Away(1)
        one.expect(DB)
        async with cancelling("allocate", one.run(store)):
            await eventually(lambda: store.failures == 0, timeout=5, what="a try")
            endpoint(one.tables, 1, DB)
            await eventually(lambda: number(one.tables, 1), timeout=5, what="an identity")
            await eventually(lambda: not one.errors, timeout=5, what="nothing to complain about")

    asyncio.run(scenario())
