"""Rows of tables as the kernel has them."""

from __future__ import annotations

import msgspec

from podwire.abi import structs
from podwire.abi.enums import EndpointFlags
from podwire.base import addresses
from podwire.bpf.map import U32
from podwire.datapath import rows
from podwire.model.rule import Direction
from podwire.state.tables import (
    BackendRow,
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    FrontendRow,
    IpcacheRow,
    LocalAddressRow,
    NodeRow,
    PeerRow,
)


def entry(protocol: int, port: int, port_bits: int) -> structs.PolicyKey:
    row = EntryRow(7, 3, Direction.INGRESS, protocol, port, port_bits, 1, 2, 0, 99)
    ((key, value),) = rows.policy_entry(row).items()
    assert structs.PolicyEntry.unpack(value) == structs.PolicyEntry(rule=99, verdict=1, match=2)
    return structs.PolicyKey.unpack(key)


def test_policy_keys_are_as_long_as_they_say() -> None:
    assert entry(0, 0, 0) == structs.PolicyKey(72, 7, 3, 1, 0, 0)
    assert entry(6, 0, 0) == structs.PolicyKey(80, 7, 3, 1, 6, 0)
    assert entry(6, 80, 16) == structs.PolicyKey(96, 7, 3, 1, 6, 80)
    assert entry(17, 0x8123, 4) == structs.PolicyKey(84, 7, 3, 1, 17, 0x8000)


def test_peers() -> None:
    peers = [PeerRow(7, Direction.EGRESS, 1234, 5), PeerRow(7, Direction.EGRESS, 1238, 6)]
    ((key, value),) = rows.policy_peers(peers).items()
    assert structs.PolicyPeersKey.unpack(key) == structs.PolicyPeersKey(7, 1234 >> 4, 2)
    assert rows.peer_key(7, Direction.EGRESS, 1234) == rows.peer_key(7, Direction.EGRESS, 1238) == key
    assert rows.peer_place(key) == ((7, Direction.EGRESS), 1234 - 1234 % rows.PEER_SPAN)
    classes = rows.peer_classes(value)
    assert (classes[1234 % rows.PEER_SPAN], classes[1238 % rows.PEER_SPAN], sum(classes)) == (5, 6, 11)


def test_an_address_goes_to_one_map_and_a_prefix_to_the_other() -> None:
    exact = IpcacheRow("10.0.0.1/32", 1234, "pod", tunnel="192.0.2.7", key=3)
    prefix = IpcacheRow("10.0.0.0/8", 16777217, "cidr")
    assert rows.ipcache_prefix(exact) == {}
    assert rows.ipcache_exact(prefix) == {}
    value = structs.IpcacheEntry(identity=1234, tunnel=addresses.pack("192.0.2.7"), key=3)
    assert rows.ipcache_exact(exact) == {addresses.pack("10.0.0.1"): value.pack()}
    ((key, _),) = rows.ipcache_prefix(prefix).items()
    assert structs.PrefixKey.unpack(key) == structs.PrefixKey(104, addresses.pack("10.0.0.0"))
    everything = rows.ipcache_prefix(IpcacheRow("0.0.0.0/0", 2, "cidr"))
    assert structs.PrefixKey.unpack(next(iter(everything))).prefix_length == 96


def test_services() -> None:
    places = (("10.0.0.4", 8443), ("10.0.0.5", 8443))
    row = FrontendRow("10.96.0.1", 443, 6, "default", "web", "https", "ClusterIP", 9, 77, (4, 5), 30, places)
    slots = [structs.Slot(addresses.pack(f"10.0.0.{number}"), 8443, number) for number in (4, 5)]
    ((key, value),) = rows.frontend(row).items()
    assert structs.FrontendKey.unpack(key) == structs.FrontendKey(addresses.pack("10.96.0.1"), 443, 6)
    assert structs.Frontend.unpack(value) == structs.Frontend(77, 2, 9, 30, 2)
    assert rows.slots(row) == {
        structs.SlotKey(77, place).pack(): slot.pack() for place, slot in enumerate(slots)
    }
    few = msgspec.structs.replace(row, set=0)
    assert rows.slots(few) == {}
    ((_, value),) = rows.frontend(few).items()
    made = structs.Frontend.unpack(value)
    assert (made.set, made.count) == (0, 2) and [rows.slot_of(made, place) for place in (0, 1)] == slots
    assert rows.rev_nat(row) == {U32.pack(9): structs.RevNat(addresses.pack("10.96.0.1"), 443).pack()}
    ((_, value),) = rows.backend(BackendRow(4, "10.0.0.9", 8443, 6, "terminating", "n1"), "n1").items()
    assert structs.Backend.unpack(value) == structs.Backend(addresses.pack("10.0.0.9"), 8443, 6, 3)
    elsewhere = BackendRow(4, "10.0.0.9", 8443, 6, "active", "n1", "west")  # a node of the same name
    ((_, value),) = rows.backend(elsewhere, "n1").items()
    assert structs.Backend.unpack(value).flags == 0


def test_an_endpoint_that_is_not_known_lets_nothing_pass() -> None:
    row = EndpointRow(
        1, "default", "web", "u", "c", "/n", "lxc1", 12, "02:00:00:00:00:01", "02:00:00:00:00:02",
        "10.0.0.5", "", ("k8s:app=web",), 1234, (), "ready",
    )  # fmt: skip
    assert rows.endpoint_value(row, None).flags == EndpointFlags.NOT_READY
    policy = EndpointPolicyRow(1, 7, enforce_ingress=True, enforce_egress=False, revision=2)
    made = rows.endpoint_value(row, policy)
    assert (made.flags, made.policy, made.identity) == (EndpointFlags.ENFORCE_INGRESS, 7, 1234)
    assert made.mac == bytes.fromhex("020000000001")
    assert rows.endpoint_addresses(row) == [addresses.pack("10.0.0.5")]


def test_the_nodes_own_addresses_go_to_its_stack() -> None:
    node = NodeRow("n1", ("192.0.2.1",), ("10.0.1.0/24",), {}, True, ("10.0.1.254",))
    entries = rows.node_addresses(node)
    assert set(entries) == {addresses.pack("192.0.2.1"), addresses.pack("10.0.1.254")}
    assert {structs.Endpoint.unpack(value).flags for value in entries.values()} == {EndpointFlags.HOST}
    remote = NodeRow("n2", ("192.0.2.2",), ("10.0.2.0/24",), {}, False)
    assert rows.node_addresses(remote) == {}


def test_what_the_kernel_takes_for_the_nodes_own_is_the_nodes() -> None:
    for prefix in ("172.30.0.1/32", "172.30.0.255/32", "fd00:88::1/128"):
        ((key, value),) = rows.local_address(LocalAddressRow(prefix, "local")).items()
        assert key == addresses.pack(prefix.split("/")[0])
        assert structs.Endpoint.unpack(value) == structs.Endpoint(identity=1, flags=EndpointFlags.HOST)
    for prefix in ("10.9.0.0/16", "ff00::/8", "127.0.0.1/32", "127.255.255.255/32", "::1/128"):
        assert rows.local_address(LocalAddressRow(prefix, "local")) == {}
