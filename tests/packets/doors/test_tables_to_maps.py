"""Tables to the maps of the shipped programs: order, restarts, growth."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable

import msgspec
import pytest
from tests.patience import within

from podwire.abi import structs
from podwire.abi.enums import EndpointFlags
from podwire.base import addresses
from podwire.base.aio import Backoff, Supervised, eventually
from podwire.base.errors import MapFull
from podwire.datapath import generations
from podwire.datapath.epochs import SERVICE
from podwire.datapath.maps import Maps, restore_numbers
from podwire.datapath.programs import Programs
from podwire.datapath.write import Writer
from podwire.model.cluster import OWN
from podwire.model.rule import Direction
from podwire.state.tables import (
    BackendRow,
    DeviceRow,
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    FrontendRow,
    IdentityRow,
    IpcacheRow,
    LocalAddressRow,
    NodeRow,
    PeerRow,
    ProgressRow,
    Tables,
)

pytestmark = pytest.mark.kernel

WEB = EndpointRow(
    1, "default", "web", "u", "c1", "/n", "lxc1", 4711, "02:00:00:00:00:01", "02:00:00:00:00:02",
    "10.0.1.5", "fd00:1::5", ("k8s:app=web",), 1234, (), "ready",
)  # fmt: skip
OBEYS = EndpointPolicyRow(1, 7, enforce_ingress=True, enforce_egress=False, revision=1)


def entry(policy: int, number: int, verdict: int = 1) -> EntryRow:
    return EntryRow(policy, number, Direction.INGRESS, 6, 80, 16, verdict, 2, 0, 10 + number)


def fill(tables: Tables) -> None:
    tables.policy_entries.put(entry(7, 1))
    tables.policy_peers.put(PeerRow(7, Direction.INGRESS, 99, 1))
    tables.ipcache.put(IpcacheRow("10.0.1.5/32", 1234, "endpoint"))
    tables.ipcache.put(IpcacheRow("10.0.0.0/8", 2, "cidr"))
    tables.nodes.put(NodeRow("n1", ("192.0.2.1",), ("10.0.1.0/24",), {}, True, ("10.0.1.254",)))
    tables.backends.put(BackendRow(4, "10.0.1.5", 8080, 6, "active"))
    for address in ("10.96.0.1", "192.0.2.1"):
        number = 1 if address.startswith("10.") else 2
        tables.frontends.put(
            FrontendRow(
                *(address, 80, 6, "default", "web", "http", "ClusterIP", number, 77, (4,)),
                places=(("10.0.1.5", 8080),),
            )
        )
    know(tables, 1234)
    tables.endpoints.put(WEB)
    tables.endpoint_policies.put(OBEYS)


def know(tables: Tables, number: int) -> None:
    """Policies have taken in that there is this identity."""
    tables.identities.put(IdentityRow(number, ("k8s:app=web",), "cluster"))
    tables.progress.put(ProgressRow("policy.compute", tables.identities.revision, 0))


def ready(tables: Tables) -> None:
    for table in tables:
        table.mark_all_ready()


async def running(writer: Writer, work: Callable[[], object]) -> None:
    """`work` (may be async) while the writer runs."""
    async with Supervised("test") as group:
        group.start("write", writer.run())
        result = work()
        if asyncio.iscoroutine(result):
            await result


def content(maps: Maps) -> dict[str, dict[object, object]]:
    names = ("policy", "policy_peers", "ipcache", "backends", "slots", "rev_nat", "frontends", "endpoints")
    return {name: dict(maps[f"podwire_{name}"].items()) for name in names}


def asked_again(maps: Maps) -> int:
    """How often connections were, whichever."""
    words = array("I", maps["podwire_state"][0].pack())
    return sum(words) - words[SERVICE]


def test_everything_is_there_and_goes_again(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    ready(tables)
    writer = Writer(tables, programs.maps, "n1")
    maps = programs.maps

    async def work() -> None:
        await asyncio.wait_for(writer.wait_realized(1), 5)
        assert writer.realized(1) == OBEYS
        assert writer.errors() == {}
        web = maps["podwire_endpoints"]["10.0.1.5"]
        assert (web.policy, web.flags, web.device) == (7, EndpointFlags.ENFORCE_INGRESS, 4711)
        assert maps["podwire_devices"][4711] == maps["podwire_endpoints"]["fd00:1::5"] == web
        assert maps["podwire_endpoints"]["10.0.1.254"].flags == EndpointFlags.HOST
        prefix = structs.PrefixKey(128, addresses.pack("10.99.0.1"))
        assert maps["podwire_ipcache_prefixes"][prefix].identity == 2
        frontend = maps["podwire_frontends"][structs.FrontendKey(addresses.pack("10.96.0.1"), 80, 6)]
        slot = structs.Slot(addresses.pack("10.0.1.5"), 8080, 4)
        assert maps["podwire_slots"][structs.SlotKey(frontend.set, 0)] == slot
        backends, services, sets = restore_numbers(maps)
        assert backends == {("10.0.1.5", 8080, 6): 4}
        assert services == {("10.96.0.1", 80, 6): 1, ("192.0.2.1", 80, 6): 2}
        assert sets == dict.fromkeys(services, 77)

        epoch = asked_again(maps)
        # Two frontends have the same set of backends: it goes with the second.
        tables.frontends.delete(("10.96.0.1", 80, 6))
        await eventually(lambda: len(maps["podwire_frontends"]) == 1, timeout=within(5), what="one frontend")
        assert len(maps["podwire_slots"]) == 1
        assert asked_again(maps) == epoch  # a service decides nothing
        tables.frontends.delete(("192.0.2.1", 80, 6))
        tables.backends.delete(4)
        tables.endpoints.delete(1)
        tables.endpoint_policies.delete(1)
        tables.policy_peers.delete((7, Direction.INGRESS, 99))
        tables.policy_entries.delete((7, 1, Direction.INGRESS, 6, 80, 16))
        for prefix_text in ("10.0.1.5/32", "10.0.0.0/8"):
            tables.ipcache.delete(prefix_text)
        tables.nodes.delete((OWN, "n1"))
        await eventually(
            lambda: all(not entries for entries in content(maps).values()),
            timeout=within(5),
            what="empty maps",
        )
        assert asked_again(maps) > epoch
        assert writer.realized(1) is None

    asyncio.run(running(writer, work))


def test_an_identity_counts_when_policies_know_it(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    ready(tables)
    writer = Writer(tables, programs.maps, "n1")
    devices = programs.maps["podwire_devices"]

    async def work() -> None:
        await writer.wait_realized(1)
        # A new pod is there and may not talk; one with new labels talks under those it had.
        tables.identities.put(IdentityRow(2000, ("k8s:app=new",), "cluster"))
        new = msgspec.structs.replace(WEB, id=2, ifindex=4712, ipv4="10.0.1.6", ipv6="", identity=2000)
        tables.endpoints.put(new)
        tables.endpoint_policies.put(EndpointPolicyRow(2, 7, True, False, 1))
        tables.endpoints.put(msgspec.structs.replace(WEB, identity=2000))
        await eventually(lambda: 4712 in devices, timeout=within(5), what="the new pod's row")
        assert devices[4712].flags == EndpointFlags.NOT_READY and devices[4711].identity == 1234
        assert writer.realized(1) is None and writer.realized(2) is None
        know(tables, 2000)
        await asyncio.wait_for(asyncio.gather(writer.wait_realized(1), writer.wait_realized(2)), 5)
        assert (devices[4711].identity, devices[4712].identity) == (2000, 2000)

    asyncio.run(running(writer, work))


def test_after_a_restart_connections_are_asked_again(programs: Programs) -> None:
    """The configuration may be another one: what was allowed while policy was only audited."""

    def start() -> tuple[int, dict[str, dict[object, object]]]:
        tables = Tables()
        fill(tables)
        ready(tables)
        writer = Writer(tables, programs.maps, "n1")

        async def work() -> None:
            await eventually(lambda: writer.synced, timeout=within(5), what="the first comparison")

        asyncio.run(running(writer, work))
        return asked_again(programs.maps), content(programs.maps)

    epoch, before = start()
    later, after = start()
    assert later > epoch and after == before


def test_a_restart_changes_nothing_until_it_knows(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    ready(tables)
    first = Writer(tables, programs.maps, "n1")
    asyncio.run(running(first, lambda: first.wait_realized(1)))
    before = content(programs.maps)

    # A new agent: it finds its endpoint first, then the rest; nothing in the kernel may change.
    tables = Tables()
    second = Writer(tables, programs.maps, "n1")

    async def work() -> None:
        tables.endpoints.put(msgspec.structs.replace(WEB, identity=0, state="restoring"))
        tables.ipcache.put(IpcacheRow("10.7.7.7/32", 7, "endpoint"))
        await eventually(
            lambda: "10.7.7.7" in programs.maps["podwire_ipcache"], timeout=within(5), what="a first turn"
        )
        tables.ipcache.delete("10.7.7.7/32")
        tables.endpoints.mark_all_ready()
        tables.endpoints.put(WEB)
        await eventually(
            lambda: "10.7.7.7" not in programs.maps["podwire_ipcache"],
            timeout=within(5),
            what="a second turn",
        )
        assert content(programs.maps) == before
        fill(tables)
        ready(tables)
        await asyncio.wait_for(second.wait_realized(1), 5)
        await eventually(lambda: second.synced, timeout=within(5), what="the first comparison")
        assert content(programs.maps) == before
        # Another pod with the address of one that is gone is not taken for it.
        other = msgspec.structs.replace(WEB, id=2, mac="02:00:00:00:00:09", identity=0)
        tables.endpoints.delete(1)
        tables.endpoint_policies.delete(1)
        tables.endpoints.put(other)
        await eventually(
            lambda: programs.maps["podwire_endpoints"]["10.0.1.5"].id == 2,
            timeout=within(5),
            what="the other pod",
        )
        assert programs.maps["podwire_endpoints"]["10.0.1.5"].flags == EndpointFlags.NOT_READY

    asyncio.run(running(second, work))


def test_what_an_earlier_agent_left_goes_when_all_tables_are_ready(programs: Programs) -> None:
    programs.maps["podwire_ipcache"]["10.9.9.9"] = structs.IpcacheEntry(identity=5)
    tables = Tables()
    writer = Writer(tables, programs.maps, "n1")

    async def work() -> None:
        fill(tables)
        await asyncio.wait_for(writer.wait_realized(1), 5)
        assert "10.9.9.9" in programs.maps["podwire_ipcache"]
        ready(tables)
        await eventually(lambda: writer.synced, timeout=within(5), what="the first comparison")
        assert "10.9.9.9" not in programs.maps["podwire_ipcache"]
        assert "10.0.1.5" in programs.maps["podwire_ipcache"]

    asyncio.run(running(writer, work))


def test_a_policy_that_has_no_room_is_not_switched_to(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    ready(tables)
    writer = Writer(tables, programs.maps, "n1", backoff=Backoff(0.01, 0.02))
    maps = programs.maps

    async def work() -> None:
        await asyncio.wait_for(writer.wait_realized(1), 5)
        for number in range(100):  # the map has 64
            tables.policy_entries.put(entry(8, number))
        tables.endpoint_policies.put(msgspec.structs.replace(OBEYS, policy=8, revision=2))
        await eventually(writer.errors, timeout=within(5), what="errors")
        (name, row), error = next(iter(writer.errors().items()))
        assert name == "podwire_policy"
        assert row[0] == 8
        assert isinstance(error, MapFull) and (error.name, error.capacity) == ("podwire_policy", 64)
        assert maps["podwire_endpoints"]["10.0.1.5"].policy == 7
        assert writer.realized(1) == OBEYS
        for number in range(50, 100):
            tables.policy_entries.delete((8, number, Direction.INGRESS, 6, 80, 16))
        await asyncio.wait_for(writer.wait_realized(1), 5)
        assert maps["podwire_endpoints"]["10.0.1.5"].policy == 8
        assert writer.errors() == {}

    asyncio.run(running(writer, work))


def test_a_full_map_grows_under_the_running_programs(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    ready(tables)
    writer = Writer(tables, programs.maps, "n1", grow=programs.bigger)

    async def work() -> None:
        for number in range(1000):
            tables.ipcache.put(IpcacheRow(f"10.0.{number // 250}.{number % 250 + 1}/32", 300, "pod"))
        await eventually(lambda: writer.synced, timeout=within(20), what="the first comparison")
        assert writer.errors() == {}
        assert len(programs.maps["podwire_ipcache"]) == 1000
        assert programs.maps["podwire_ipcache"].capacity >= 1000
        assert generations.numbers(programs.loading.bpf_dir) == [generations.newest(programs.loading.bpf_dir)]
        assert programs.maps["podwire_endpoints"]["10.0.1.5"].policy == 7

    asyncio.run(running(writer, work))


def test_the_nodes_own_addresses_are_hosts_and_take_no_pods_row(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    for prefix in ("172.30.0.1/32", "10.0.1.5/32", "fd00:1::5/128", "127.0.0.1/32", "10.9.0.0/16"):
        tables.local_addresses.put(LocalAddressRow(prefix, "local"))
    ready(tables)
    writer = Writer(tables, programs.maps, "n1")
    endpoints = programs.maps["podwire_endpoints"]

    async def work() -> None:
        await asyncio.wait_for(writer.wait_realized(1), 5)
        assert endpoints["172.30.0.1"] == structs.Endpoint(identity=1, flags=EndpointFlags.HOST)
        assert endpoints["10.0.1.5"].id == endpoints["fd00:1::5"].id == 1
        assert "127.0.0.1" not in endpoints
        assert endpoints["192.0.2.1"].flags == EndpointFlags.HOST, (
            "that of the Node object, not in the kernel"
        )
        tables.local_addresses.delete("172.30.0.1/32")
        await eventually(lambda: "172.30.0.1" not in endpoints, timeout=5, what="the address to go")
        # Told again while the pod is there, then the pod goes: it is the node's.
        tables.local_addresses.put(LocalAddressRow("10.0.1.5/32", "anycast"))
        tables.endpoints.delete(1)
        await eventually(
            lambda: endpoints["10.0.1.5"].flags == EndpointFlags.HOST, timeout=5, what="the node's address"
        )
        tables.endpoints.put(WEB)
        await eventually(lambda: endpoints["10.0.1.5"].id == 1, timeout=5, what="the pod's address")
        tables.local_addresses.delete("10.0.1.5/32")
        tables.endpoint_policies.put(msgspec.structs.replace(OBEYS, policy=9))
        await eventually(lambda: endpoints["10.0.1.5"].policy == 9, timeout=5, what="the new policy")

    asyncio.run(running(writer, work))


def test_thousands_of_the_nodes_addresses_leave_room_for_pods(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    for number in range(5000):
        tables.local_addresses.put(LocalAddressRow(f"10.{50 + number // 250}.0.{number % 250}/32", "local"))
    ready(tables)
    writer = Writer(tables, programs.maps, "n1", grow=programs.bigger)

    async def work() -> None:
        await eventually(lambda: writer.synced, timeout=30, what="the first comparison")
        assert writer.errors() == {}
        assert programs.maps["podwire_endpoints"]["10.0.1.5"].policy == 7
        assert programs.maps["podwire_endpoints"]["10.69.0.249"].flags == EndpointFlags.HOST
        assert programs.maps["podwire_endpoints"].capacity >= 5003

    asyncio.run(running(writer, work))


def test_an_endpoint_is_down_while_its_device_has_lost_its_carrier(programs: Programs) -> None:
    tables = Tables()
    fill(tables)
    ready(tables)
    writer = Writer(tables, programs.maps, "n1")
    maps = programs.maps

    def down() -> bool:
        rows = {maps["podwire_endpoints"]["10.0.1.5"], maps["podwire_devices"][4711]}
        (flags,) = {row.flags for row in rows}
        assert flags & EndpointFlags.ENFORCE_INGRESS and {row.policy for row in rows} == {tables_policy()}
        return bool(flags & EndpointFlags.DOWN)

    def tables_policy() -> int:
        row = tables.endpoint_policies.get(1)
        assert row is not None
        return row.policy

    async def work() -> None:
        await asyncio.wait_for(writer.wait_realized(1), 5)
        tables.devices.put(DeviceRow(4711, "lxc1", True, False, False))  # none yet is no loss
        tables.devices.put(DeviceRow(4712, "lxc2", True, False, True))
        tables.local_addresses.put(LocalAddressRow("192.0.2.77/32", "local"))
        await eventually(lambda: "192.0.2.77" in maps["podwire_endpoints"], timeout=5, what="a turn")
        assert not down()
        tables.devices.put(DeviceRow(4711, "lxc1", True, False, True))
        await eventually(down, timeout=5, what="the endpoint to be down")
        tables.endpoint_policies.put(msgspec.structs.replace(OBEYS, policy=9))
        await asyncio.wait_for(writer.wait_realized(1), 5)
        assert down(), "after a change of policy"
        tables.devices.put(DeviceRow(4711, "lxc1", True, True, False))
        await eventually(lambda: not down(), timeout=5, what="the endpoint to be up")

    asyncio.run(running(writer, work))
