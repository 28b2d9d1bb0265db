"""Services and slices → frontends and backends."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.base.aio import cancelling, eventually
from podwire.loadbalancer import frontends
from podwire.loadbalancer.frontends import Frontends, choose
from podwire.model.cluster import OWN
from podwire.state.tables import (
    FrontendRow,
    ServicePort,
    ServiceRow,
    SliceEndpoint,
    SliceRow,
    Tables,
)

TCP, UDP, SCTP = 6, 17, 132


def service(name: str = "web", *addresses: str, ports: tuple[ServicePort, ...] = ()) -> ServiceRow:
    return ServiceRow(
        "prod",
        name,
        "ClusterIP",
        addresses or ("10.96.0.1",),
        ports or (ServicePort("http", 80, TCP, "http"),),
        {},
        {},
    )


def behind(
    name: str = "web", *endpoints: SliceEndpoint, family: int = 4, protocol: int = TCP, suffix: str = "1"
) -> SliceRow:
    return SliceRow("prod", f"{name}-{suffix}", name, family, endpoints, (("http", 8080, protocol),))


def ready(address: str) -> SliceEndpoint:
    return SliceEndpoint(address, True, True, False, "n1")


def leaving(address: str, *, serving: bool = True) -> SliceEndpoint:
    return SliceEndpoint(address, False, serving, True, "n1")


def unready(address: str) -> SliceEndpoint:
    return SliceEndpoint(address, False, False, False, "n1")


class World:
    """Tables and the stage, stepped by hand."""

    def __init__(self, **restored: dict[tuple[str, int, int], int]) -> None:
        self.tables = Tables()
        self.stage = Frontends(
            self.tables,
            restored_backends=restored.get("backends", {}),
            restored_services=restored.get("services", {}),
            restored_sets=restored.get("sets", {}),
        )

    def put(self, *rows: ServiceRow | SliceRow) -> World:
        for row in rows:
            if isinstance(row, ServiceRow):
                self.tables.services.put(row)
                self.stage.update([(row.cluster, row.namespace, row.name)])
            else:
                self.tables.slices.put(row)
                self.stage.update([(row.cluster, row.namespace, row.service)])
        return self

    def delete(self, name: str) -> World:
        self.tables.services.delete((OWN, "prod", name))
        self.stage.update([(OWN, "prod", name)])
        return self

    def frontend(self, address: str = "10.96.0.1", port: int = 80, protocol: int = TCP) -> FrontendRow:
        row = self.tables.frontends.get((address, port, protocol))
        assert row is not None
        return row

    def active(self, row: FrontendRow) -> list[str]:
        return [self.tables.backends.get(number).address for number in row.backends]  # type: ignore[union-attr]

    def states(self) -> dict[str, str]:
        return {row.address: row.state for row in self.tables.backends}


def test_what_another_cluster_calls_the_same_is_neither_the_service_nor_its_backends() -> None:
    def west(row: Any) -> Any:
        return msgspec.structs.replace(row, cluster="west")

    world = World().put(service(), behind("web", ready("10.0.1.1")))
    before = world.frontend()
    world.put(west(behind("web", ready("10.9.1.1"))), west(service("web", "10.96.0.9")))
    assert world.frontend() == before and world.active(before) == ["10.0.1.1"]
    assert len(world.tables.frontends) == 1 and set(world.states()) == {"10.0.1.1"}
    assert len(world.tables.services) == len(world.tables.slices) == 2
    world.tables.services.delete(("west", "prod", "web"))
    world.stage.update([("west", "prod", "web")])
    assert world.frontend() == before
    world.delete("web")
    assert not len(world.tables.frontends) and not world.states()


def test_a_change_of_another_clusters_slices_moves_nothing_here() -> None:
    async def main() -> None:
        world = World()
        tables = world.tables
        tables.services.put(service())
        tables.slices.put(behind("web", ready("10.0.1.1")))
        tables.services.mark_all_ready()
        tables.slices.mark_all_ready()
        async with cancelling("frontends", world.stage.run()):
            await eventually(lambda: tables.frontends.ready, timeout=5, what="the start")
            before = world.frontend()
            for one in ("10.9.1.1", "10.9.1.2"):
                tables.slices.put(msgspec.structs.replace(behind("web", ready(one)), cluster="west"))
            tables.slices.put(behind("db", ready("10.0.1.9")))
            tables.services.put(service("db", "10.96.0.2"))
            await eventually(
                lambda: ("10.96.0.2", 80, TCP) in tables.frontends, timeout=5, what="what came after"
            )
            assert world.frontend() == before and set(world.states()) == {"10.0.1.1", "10.0.1.9"}

    asyncio.run(main())


def test_ready_endpoints_are_active_under_a_number_of_their_own() -> None:
    world = World().put(behind("web", ready("10.0.1.1"), ready("10.0.1.2")), service())
    row = world.frontend()
    assert world.active(row) == ["10.0.1.1", "10.0.1.2"]
    assert row.set == 0 and row.rev_nat == 1 and row.service == "web" and row.port_name == "http"


def test_terminating_endpoints_keep_connections_and_get_new_ones_only_alone() -> None:
    world = World().put(service(), behind("web", ready("10.0.1.1"), leaving("10.0.1.2")))
    assert world.active(world.frontend()) == ["10.0.1.1"]
    assert world.states() == {"10.0.1.1": "active", "10.0.1.2": "terminating"}
    world.put(behind("web", unready("10.0.1.1"), leaving("10.0.1.2")))
    assert world.active(world.frontend()) == ["10.0.1.2"]
    assert world.states() == {"10.0.1.1": "terminating", "10.0.1.2": "active"}
    world.put(behind("web", unready("10.0.1.1"), leaving("10.0.1.2", serving=False)))
    assert world.frontend().backends == () and world.frontend().set == 0


def test_udp_backends_that_do_not_serve_are_gone() -> None:
    ports = (ServicePort("http", 53, UDP, "dns"),)
    rows = behind("web", ready("10.0.1.1"), unready("10.0.1.2"), leaving("10.0.1.3"), protocol=UDP)
    world = World().put(service(ports=ports), rows)
    assert world.states() == {"10.0.1.1": "active", "10.0.1.3": "terminating"}


def test_both_families_and_protocols_are_apart() -> None:
    ports = (ServicePort("http", 80, TCP, "1"), ServicePort("s", 81, SCTP, "1"))
    world = World().put(
        service("web", "10.96.0.1", "fd00:96::1", ports=ports),
        behind("web", ready("10.0.1.1")),
        behind("web", ready("fd00::1"), family=6, suffix="2"),
    )
    assert world.active(world.frontend()) == ["10.0.1.1"]
    assert world.active(world.frontend("fd00:96::1")) == ["fd00::1"]
    assert len(world.tables.frontends) == 2  # SCTP is not served


def test_headless_services_have_no_frontend() -> None:
    headless = msgspec.structs.replace(service(), cluster_addresses=())
    world = World().put(headless, behind("web", ready("10.0.1.1")))
    assert len(world.tables.frontends) == len(world.tables.backends) == 0


def test_a_deleted_service_leaves_nothing_but_shared_backends() -> None:
    world = World().put(
        service("a", "10.96.0.1"),
        service("b", "10.96.0.2"),
        behind("a", ready("10.0.1.1"), ready("10.0.1.2")),
    )
    world.put(behind("b", ready("10.0.1.1")))
    world.delete("a")
    assert world.states() == {"10.0.1.1": "active"}
    world.delete("b")
    assert len(world.tables.frontends) == len(world.tables.backends) == 0
    assert not world.stage._set_names and len(world.stage._ids) == len(world.stage._rev_nats) == 0


def test_of_many_backends_one_that_changes_changes_one_place() -> None:
    def many(*others: str) -> list[SliceEndpoint]:
        return [
            *(ready(f"10.0.{number // 250}.{number % 250}") for number in range(5000)),
            *map(ready, others),
        ]

    world = World().put(service("web", "10.96.0.1", "10.96.0.2"), behind("web", *many()))
    before = world.frontend()
    assert before.set != 0 and len(set(before.backends)) == 5000
    assert (world.frontend("10.96.0.2").set, world.frontend("10.96.0.2").backends) == (
        before.set,
        before.backends,
    )
    world.put(behind("web", *many("10.1.0.1")[1:]))
    after = world.frontend()
    changed = [
        at for at, pair in enumerate(zip(before.backends, after.backends, strict=True)) if len({*pair}) > 1
    ]
    assert after.set == before.set and len(changed) == 1
    assert world.frontend("10.96.0.2").backends == after.backends
    world.put(behind("web", ready("10.0.0.1")))
    assert world.frontend().set == 0 and world.active(world.frontend()) == ["10.0.0.1"]
    world.delete("web")
    assert not world.stage._set_names and not world.stage._sets._numbers


def test_the_number_of_a_set_survives_a_restart_whoever_comes_first() -> None:
    many = [ready(f"10.0.0.{number}") for number in range(20)]
    rows = [
        service("web", "10.96.0.1"),
        service("api", "10.96.0.2"),
        behind("web", *many),
        behind("api", *many),
    ]
    taken = World().put(*rows).frontend("10.96.0.2").set
    # The kernel has api's number for web: as if their names had one hash, and web had come first.
    after = World(sets={("10.96.0.1", 80, TCP): taken}).put(rows[1], rows[3], rows[0], rows[2])
    assert after.frontend("10.96.0.1").set == taken != after.frontend("10.96.0.2").set != 0


def test_numbers_survive_a_restart() -> None:
    world = World().put(service(), behind("web", ready("10.0.1.1")))
    world.put(behind("web", ready("10.0.1.2"), ready("10.0.1.1")))
    held = {(row.address, row.port, row.protocol): row.id for row in world.tables.backends}
    numbers = {(row.address, row.port, row.protocol): row.rev_nat for row in world.tables.frontends}
    after = World(backends=held, services=numbers | {("10.96.9.9", 1, TCP): 900})
    after.put(service(), behind("web", ready("10.0.1.2"), ready("10.0.1.1")))
    assert after.frontend() == world.frontend()
    after.put(service("new", "10.96.0.7"))
    assert after.frontend("10.96.0.7").rev_nat == 901


def test_a_service_for_which_no_number_is_left_is_named_and_served_when_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frontends, "LAST_REV_NAT", 2)
    world = World()
    for number in range(1, 4):
        world.put(service(f"s{number}", f"10.96.0.{number}"))
    assert len(world.tables.frontends) == 2
    assert "prod/s3 is not served: all 2 numbers" in world.stage.problems["10.96.0.3", 80, TCP]
    world.delete("s1").put(service("s3", "10.96.0.3"))
    assert world.frontend("10.96.0.3").rev_nat == 1 and not world.stage.problems


def test_an_address_of_another_service_waits_for_it() -> None:
    world = World().put(service("a"), service("b"), behind("b", ready("10.0.1.1")))
    assert world.frontend().service == "a" and "prod/b" in world.stage.problems["10.96.0.1", 80, TCP]
    world.delete("a")
    assert world.frontend().service == "b" and world.stage.problems == {}


def test_nothing_is_written_before_all_is_known() -> None:
    async def run() -> None:
        world = World()
        world.tables.services.put(service())
        async with cancelling("frontends", world.stage.run()):
            world.tables.services.mark_all_ready()
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(world.tables.frontends) == 0
            world.tables.slices.put(behind("web", ready("10.0.1.1")))
            world.tables.slices.mark_all_ready()
            await eventually(lambda: world.tables.frontends.ready, timeout=5, what="frontends")
            assert world.active(world.frontend()) == ["10.0.1.1"]
            world.tables.slices.delete((OWN, "prod", "web-1"))
            await eventually(lambda: world.frontend().backends == (), timeout=5, what="the change")

    asyncio.run(run())


ENDPOINTS = st.builds(
    SliceEndpoint,
    st.sampled_from([f"10.0.1.{last}" for last in range(6)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.just("n1"),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.one_of(st.none(), st.lists(ENDPOINTS, max_size=4, unique_by=lambda one: one.address)),
        ),
        max_size=12,
    )
)
def test_many_changes_give_what_one_would(changes: list[tuple[str, list[SliceEndpoint] | None]]) -> None:
    """However services change, the rows are those of a fresh start with the last state."""
    world = World()
    for name, endpoints in changes:
        if endpoints is None:
            world.delete(name)
        else:
            world.put(service(name, f"10.96.0.{ord(name)}"), behind(name, *endpoints))
    fresh = World().put(*world.tables.slices, *world.tables.services)
    assert _meaning(world) == _meaning(fresh)
    assert world.states() == fresh.states()
    for row in world.tables.frontends:
        assert all(number in world.tables.backends for number in row.backends)


def _meaning(world: World) -> dict[tuple[str, str], list[str]]:
    return {(row.service, row.address): sorted(world.active(row)) for row in world.tables.frontends}


def test_the_order_of_slices_does_not_matter() -> None:
    endpoints = [ready("10.0.1.1"), leaving("10.0.1.1"), unready("10.0.1.2"), ready("10.0.1.3")]
    rows = [behind("web", one, suffix=str(index)) for index, one in enumerate(endpoints)]
    first = choose(service(), rows)
    for seed in range(10):
        random.Random(seed).shuffle(rows)
        again = choose(service(), rows)
        assert again.frontends == first.frontends and again.uses == first.uses
