"""Entries of maps → rows with names and reasons."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from podwire.abi import structs
from podwire.agent import dumps
from podwire.agent.interface import DUMPS
from podwire.base.addresses import V4_MAPPED, pack, pack_prefix
from podwire.datapath import conntrack
from podwire.datapath import rows as rows_of
from podwire.model.rule import Direction, Origin
from podwire.state.tables import PeerRow, RuleRow, Tables


class Held(dict[str, Any]):
    """Maps as dicts; those that are not given are empty."""

    def __missing__(self, name: str) -> dict[Any, Any]:
        return {}


@pytest.fixture
def tables(memory: ModuleType) -> Tables:
    found = memory.example_tables()
    assert isinstance(found, Tables)
    return found


def dump(name: str, tables: Tables, **maps: dict[Any, Any]) -> list[dict[str, Any]]:
    held: Any = Held({f"podwire_{one}": content for one, content in maps.items()})
    return dumps.DUMPS[name](held, tables)


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
