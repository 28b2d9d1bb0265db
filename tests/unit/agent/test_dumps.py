"""Entries of maps → rows with names and reasons."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from podwire.abi import structs
from podwire.agent import dumps
from podwire.agent.dumps import names
from podwire.agent.interface import DUMPS, FILTERS
from podwire.base.addresses import V4_MAPPED, join, pack, pack_prefix, unpack
from podwire.base.errors import NotFound
from podwire.datapath import conntrack
from podwire.datapath import rows as rows_of
from podwire.model.rule import Direction, Origin
from podwire.state.tables import PeerRow, RemoteEndpointRow, RuleRow, Tables


class InMemory(dict[Any, Any]):
    """A map as a dict; `blocks` has a few of its entries each, and counts those that were asked for."""

    SIZE = 2
    read = 0

    def blocks(self) -> Iterator[tuple[bytes, bytes]]:
        entries = [(_packed(key), value.pack()) for key, value in self.items()]
        for some in batched(entries, self.SIZE):
            self.read += 1
            yield b"".join(key for key, _ in some), b"".join(value for _, value in some)

    def snapshot(self) -> tuple[bytes, bytes]:
        found = list(self.blocks())
        return b"".join(keys for keys, _ in found), b"".join(values for _, values in found)


def _packed(key: Any) -> bytes:
    return pack(key) if isinstance(key, str) else bytes(key.pack())


def batched(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


class Held(dict[str, Any]):
    """Maps by name; those that are not given are empty."""

    def __missing__(self, name: str) -> InMemory:
        return InMemory()


@pytest.fixture
def tables(memory: ModuleType) -> Tables:
    found = memory.example_tables()
    assert isinstance(found, Tables)
    return found


def dump(
    name: str, tables: Tables, query: dict[str, str] | None = None, **maps: dict[Any, Any]
) -> list[dict[str, Any]]:
    held: Any = Held({f"podwire_{one}": InMemory(content) for one, content in maps.items()})
    wanted = dumps.read(name, query or {}).known(name, tables)
    return [row for block in dumps.DUMPS[name](held, tables, wanted) for row in block]


def slot(number: int) -> structs.Slot:
    return structs.Slot(pack("10.0.1.1"), 8080, number)


def test_frontends_with_and_without_backends(tables: Tables) -> None:
    rows = dump(
        "lb",
        tables,
        frontends={
            structs.FrontendKey(pack("10.96.0.1"), 80, 6): structs.Frontend(set=77, count=2, rev_nat=1),
            structs.FrontendKey(pack("fd00::1"), 53, 17): structs.Frontend(rev_nat=2),
            structs.FrontendKey(pack("10.96.0.3"), 80, 6): structs.Frontend(
                count=1, rev_nat=3, slots=slot(3).pack()
            ),
        },
        slots={structs.SlotKey(77, 0): slot(3), structs.SlotKey(77, 1): slot(9)},
        backends={3: structs.Backend(pack("10.0.1.1"), 8080, 6, 1)},
    )
    assert [(row["frontend"], row["service"], row["backend"], row["state"]) for row in rows] == [
        ("10.96.0.1:80/TCP", "prod/web", "10.0.1.1:8080", "terminating"),
        ("10.96.0.1:80/TCP", "prod/web", "", "missing"),
        ("[fd00::1]:53/UDP", "", "", "none"),
        ("10.96.0.3:80/TCP", "", "10.0.1.1:8080", "terminating"),
    ]


def test_connections_name_the_pod_the_service_and_the_rule(tables: Tables) -> None:
    key = structs.CtKey(pack("10.0.1.1"), pack("10.0.2.2"), 8080, 4000, 6, 0)
    live = structs.CtEntry(
        expires=conntrack.now() + 60, rule=55, rev_nat=1, direction=1, flags=4, identity=1235
    )
    old = structs.CtKey(pack("10.0.1.1"), pack("10.0.2.3"), 8080, 4000, 6, 0)
    (row,) = dump("ct", tables, conntrack={key: live, old: structs.CtEntry(expires=1)})
    assert (row["endpoint"], row["direction"], row["flags"]) == ("prod/web-1", "ingress", ["seen_reply"])
    assert (row["local"], row["remote"], row["service"]) == ("10.0.1.1:8080", "10.0.2.2:4000", "prod/web")
    assert row["because"] == "CiliumNetworkPolicy prod/allow-web ingress[0]"


def test_policy_entries_say_because(tables: Tables) -> None:
    origin = Origin("CiliumNetworkPolicy", "prod", "allow-web")
    tables.rules.put(RuleRow(56, Direction.INGRESS, (origin,), "", True))
    members = [PeerRow(9, Direction.INGRESS, one, 4) for one in (1235, 2)]
    rows = dump(
        "policy",
        tables,
        policy={
            structs.PolicyKey(96, 9, 4, 1, 6, 8080): structs.PolicyEntry(55, 0, 1, 2),
            structs.PolicyKey(93, 9, 4, 1, 17, 8000): structs.PolicyEntry(55, 0, 2, 2),
            structs.PolicyKey(80, 9, 4, 1, 6, 0): structs.PolicyEntry(99, 0, 1, 2),
            structs.PolicyKey(72, 9, 0, 1): structs.PolicyEntry(56),
        },
        policy_peers={
            structs.PolicyPeersKey.unpack(key): structs.PolicyPeers.unpack(value)
            for key, value in rows_of.policy_peers(members).items()
        },
    )
    by_port = {row["port"]: row for row in rows}
    assert by_port["8080/TCP"]["peers"] == ["world", "k8s:app=client"]
    assert by_port["8080/TCP"]["endpoints"] == [5]
    assert by_port["8080/TCP"]["because"] == "CiliumNetworkPolicy prod/allow-web ingress[0]"
    assert by_port["8000-8007/UDP"]["verdict"] == "deny"
    assert by_port["any/TCP"]["because"] == "rule 99"
    assert by_port["any"]["verdict"] == "default deny"
    assert by_port["any"]["because"] == "CiliumNetworkPolicy prod/allow-web: default deny, ingress"


def test_ipcache(tables: Tables) -> None:
    bits, base = pack_prefix("10.0.0.0/8")
    rows = dump(
        "ipcache",
        tables,
        ipcache={"10.0.1.1": structs.IpcacheEntry(identity=1234)},
        ipcache_prefixes={
            structs.PrefixKey(bits, base): structs.IpcacheEntry(2, tunnel=pack("172.20.0.2")),
            structs.PrefixKey(96, V4_MAPPED + bytes(4)): structs.IpcacheEntry(2),
        },
    )
    assert [(row["prefix"], row["name"], row["pod"], row["tunnel"]) for row in rows] == [
        ("0.0.0.0/0", "world", "", ""),
        ("10.0.0.0/8", "world", "", "172.20.0.2"),
        ("10.0.1.1/32", "k8s:app=web,k8s:io.kubernetes.pod.namespace=prod", "prod/web-1", ""),
    ]


def test_every_dump_can_be_asked_for(tables: Tables) -> None:
    assert set(dumps.DUMPS) == set(DUMPS)
    assert all(dump(name, tables) == [] for name in DUMPS)


# --- filters ------------------------------------------------------------------------------------


def _connection(local: str, port: int, remote: str, remote_port: int, protocol: int = 6) -> structs.CtKey:
    return structs.CtKey(pack(local), pack(remote), port, remote_port, protocol, 0)


CONNECTIONS = [
    _connection("10.0.1.1", 8080, "10.0.2.2", 4000),
    _connection("10.0.1.1", 4001, "10.96.0.1", 80),
    _connection("10.0.1.2", 53, "10.0.2.2", 4000, 17),
    _connection("fd00:1::1", 8080, "fd00:2::2", 4000),
]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, [0, 1, 2, 3]),
        ({"pod": "prod/web-1"}, [0, 1, 3]),
        ({"endpoint": "5"}, [0, 1, 3]),
        ({"address": "10.0.2.2"}, [0, 2]),
        ({"address": "10.0.0.0/15"}, [0, 1, 2]),
        ({"address": "10.0.1.1"}, [0, 1]),
        ({"address": "fd00:2::/32"}, [3]),
        ({"address": "::/0"}, [0, 1, 2, 3]),  # the datapath's addresses all are of 16 bytes
        ({"port": "4000"}, [0, 2, 3]),
        ({"port": "80"}, [1]),
        ({"protocol": "udp"}, [2]),
        ({"protocol": "6", "port": "4000", "pod": "prod/web-1"}, [0, 3]),
        ({"protocol": "132"}, []),
    ],
)
def test_connections_by_filter(tables: Tables, query: dict[str, str], shown: list[int]) -> None:
    until = conntrack.now() + 60
    held: Any = {key: structs.CtEntry(expires=until, rule=55 + at) for at, key in enumerate(CONNECTIONS)}
    rows = dump(
        "ct", tables, query, conntrack=dict(list(held.items())[:2]), ct_overflow=dict(list(held.items())[2:])
    )
    assert [at for at, key in enumerate(CONNECTIONS) if any(_is(row, key) for row in rows)] == shown
    assert len(rows) == len(shown)


def _is(row: dict[str, Any], key: structs.CtKey) -> bool:
    ends = join(unpack(key.local), key.local_port), join(unpack(key.remote), key.remote_port)
    return (row["local"], row["remote"]) == ends


def test_a_remembered_backend_has_no_counters(tables: Tables) -> None:
    """Behind its flags stands an address, which is nobody's bytes."""
    key = _connection("10.0.1.1", 1, "10.96.0.1", 80)
    memory = structs.CtMemory(
        expires=conntrack.now() + 60, rev_nat=1, direction=2, flags=16, backend=7, address=b"\xff" * 16
    )
    (row,) = dump("ct", tables, conntrack={key: memory})
    assert row["scope"] == "service" and row["service"] == "prod/web" and row["direction"] == "egress"
    assert [row[one] for one in ("identity", "packets_sent", "bytes_sent", "bytes_received")] == [0, 0, 0, 0]
    assert row["because"] == "" and row["flags"] == ["memory"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, ["10.96.0.1:80", "10.96.0.1:80", "10.96.0.2:53"]),
        ({"pod": "prod/web-1"}, ["10.96.0.1:80"]),
        ({"address": "10.96.0.0/16"}, ["10.96.0.1:80", "10.96.0.1:80", "10.96.0.2:53"]),
        ({"address": "10.0.9.9"}, ["10.96.0.1:80"]),
        ({"port": "8080"}, ["10.96.0.1:80", "10.96.0.1:80"]),
        ({"port": "53"}, ["10.96.0.2:53"]),
        ({"protocol": "UDP"}, ["10.96.0.2:53"]),
    ],
)
def test_services_by_filter(tables: Tables, query: dict[str, str], shown: list[str]) -> None:
    rows = dump(
        "lb",
        tables,
        query,
        frontends={
            structs.FrontendKey(pack("10.96.0.2"), 53, 17): structs.Frontend(rev_nat=2),
            structs.FrontendKey(pack("10.96.0.1"), 80, 6): structs.Frontend(set=77, count=2, rev_nat=1),
        },
        slots={structs.SlotKey(77, 0): slot(3), structs.SlotKey(77, 1): slot(9)},
        backends={
            3: structs.Backend(pack("10.0.1.1"), 8080, 6),
            9: structs.Backend(pack("10.0.9.9"), 8080, 6),
        },
    )
    assert [row["frontend"].rpartition("/")[0] for row in rows] == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, ["any", "any/TCP", "8080/TCP", "8000-8007/UDP", "8.0/ICMP"]),
        ({"port": "8080"}, ["any", "any/TCP", "8080/TCP"]),
        ({"port": "8005"}, ["any", "any/TCP", "8000-8007/UDP"]),
        ({"port": "8005", "protocol": "tcp"}, ["any", "any/TCP"]),
        ({"port": "2048"}, ["any", "any/TCP"]),  # ICMP's type 8 is no port
        ({"protocol": "icmp"}, ["any", "8.0/ICMP"]),
        ({"endpoint": "5"}, ["any", "any/TCP", "8080/TCP", "8000-8007/UDP", "8.0/ICMP"]),
        ({"endpoint": "6"}, []),
    ],
)
def test_policy_entries_by_filter(
    tables: Tables, query: dict[str, str], shown: list[str], memory: ModuleType
) -> None:
    tables.endpoints.put(memory.endpoint(6, "web-2", "10.0.1.9", container="c2"))
    rows = dump(
        "policy",
        tables,
        query,
        policy={
            structs.PolicyKey(72, 9, 0, 1): structs.PolicyEntry(55),
            structs.PolicyKey(80, 9, 4, 1, 6, 0): structs.PolicyEntry(55, 0, 1, 2),
            structs.PolicyKey(96, 9, 4, 1, 6, 8080): structs.PolicyEntry(55, 0, 1, 2),
            structs.PolicyKey(93, 9, 4, 1, 17, 8000): structs.PolicyEntry(55, 0, 2, 2),
            structs.PolicyKey(96, 9, 4, 1, 1, 8 << 8): structs.PolicyEntry(55, 0, 2, 2),
        },
    )
    assert sorted(row["port"] for row in rows) == sorted(shown)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({"pod": "prod/web-1"}, ["10.0.1.1/32"]),
        ({"address": "10.0.1.1"}, ["0.0.0.0/0", "10.0.0.0/8", "10.0.1.1/32"]),
        ({"address": "10.128.0.0/9"}, ["0.0.0.0/0", "10.0.0.0/8", "10.200.0.0/16"]),
        ({"address": "192.0.2.1"}, ["0.0.0.0/0"]),
        ({"address": "fd00::1"}, ["fd00::/8", "fd00::1/128"]),
    ],
)
def test_ipcache_by_filter(tables: Tables, query: dict[str, str], shown: list[str]) -> None:
    prefixes = ("0.0.0.0/0", "10.0.0.0/8", "10.200.0.0/16", "fd00::/8")
    rows = dump(
        "ipcache",
        tables,
        query,
        ipcache={one: structs.IpcacheEntry(identity=1234) for one in ("10.0.1.1", "fd00::1")},
        ipcache_prefixes={structs.PrefixKey(*pack_prefix(one)): structs.IpcacheEntry(2) for one in prefixes},
    )
    assert [row["prefix"] for row in rows] == shown


def test_a_pod_of_another_node_is_found_by_name(tables: Tables) -> None:
    tables.remote_endpoints.put(RemoteEndpointRow("prod", "db", 99, ("10.0.2.7",), "172.20.0.2"))
    tables.remote_endpoints.put(
        RemoteEndpointRow("prod", "db", 98, ("10.0.3.7",), "172.20.0.3", cluster="west")
    )
    held = {one: structs.IpcacheEntry(identity=99) for one in ("10.0.1.1", "10.0.2.7", "10.0.3.7")}
    rows = dump("ipcache", tables, {"pod": "prod/db"}, ipcache=held, ipcache_prefixes={})
    assert [row["prefix"] for row in rows] == ["10.0.2.7/32"]


@pytest.mark.parametrize("name", DUMPS)
@pytest.mark.parametrize("query", [{"pod": "prod/nobody"}, {"endpoint": "77"}])
def test_who_is_not_there_is_said(tables: Tables, name: str, query: dict[str, str]) -> None:
    if set(query) <= set(FILTERS[name]):
        with pytest.raises(NotFound):
            dump(name, tables, query)


# --- memory -------------------------------------------------------------------------------------


def test_no_more_of_the_connections_is_read_than_was_taken(tables: Tables) -> None:
    until = conntrack.now() + 60
    held = InMemory(
        {
            _connection("10.0.1.1", port, "10.0.2.2", 4000): structs.CtEntry(expires=until)
            for port in range(1, 101)
        }
    )
    maps: Any = Held({"podwire_conntrack": held})
    steps = dumps.DUMPS["ct"](maps, tables, dumps.Wanted())
    taken = [next(steps) for _ in range(3)]
    assert [len(block) for block in taken] == [2, 2, 2] and held.read == 3


def test_a_large_block_becomes_text_in_parts(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InMemory, "SIZE", 4096)
    until = conntrack.now() + 60
    connections = {
        _connection("10.0.1.1", port, "10.0.2.2", 4000): structs.CtEntry(expires=until)
        for port in range(1, 1300)
    }
    maps: Any = Held({"podwire_conntrack": InMemory(connections)})
    assert [len(block) for block in dumps.DUMPS["ct"](maps, tables, dumps.Wanted())] == [512, 512, 275]


def test_every_member_of_a_class_is_named_and_no_other(tables: Tables) -> None:
    """Against the definition: the rows that the map was filled from."""
    chance = random.Random(5)
    places = {
        (policy, direction, identity): chance.randrange(1, 4)
        for policy in (9, 10)
        for direction in Direction
        for identity in chance.sample(range(1, 200), 60)
    }
    members = [PeerRow(*place, peer_class) for place, peer_class in places.items()]
    entries = {
        structs.PolicyKey(72, policy, number, direction): structs.PolicyEntry(55)
        for policy in (9, 10)
        for direction in Direction
        for number in range(1, 5)
    }
    rows = dump(
        "policy",
        tables,
        policy=entries,
        policy_peers={
            structs.PolicyPeersKey.unpack(key): structs.PolicyPeers.unpack(value)
            for key, value in rows_of.policy_peers(members).items()
        },
    )
    assert len(rows) == 16
    for key, row in zip(
        sorted(entries, key=lambda key: (key.policy, key.direction, key.peer_class)), rows, strict=True
    ):
        place = (key.policy, key.direction, key.peer_class)
        expected = sorted(one[2] for one, number in places.items() if (one[0], one[1], number) == place)
        assert row["peers"] == [names.named(tables, one) for one in expected]
