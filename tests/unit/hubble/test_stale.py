"""Names that are remembered are those a fresh look at the tables gives, after any change."""

from __future__ import annotations

import ipaddress
import random

import numpy as np
import pytest

from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.hubble.prefixes import Prefixes
from podwire.model.cluster import OWN
from podwire.model.rule import Direction, Origin
from podwire.state.tables import EndpointRow, IdentityRow, IpcacheRow, PodRow, RuleRow, Tables
from podwire.testing import flows

ADDRESSES = ("10.0.1.1", "10.0.1.2", "10.0.2.2", "10.0.9.9", "fd00::1:1", "fd00::9:9", "203.0.113.5")
PREFIXES = ("10.0.0.0/8", "10.0.9.0/24", "203.0.113.0/24", "fd00::/64", "::/0")


def events(chance: random.Random) -> flows.Records:
    made = []
    for _ in range(12):
        source, destination = chance.choice(ADDRESSES), chance.choice(ADDRESSES)
        fields = {
            "source_identity": chance.choice((0, 2, 1001, 1002)),
            "source_endpoint": chance.choice((0, 0, 11, 12)),
            "destination_identity": chance.choice((0, 1002, 1003)),
            "destination_endpoint": chance.choice((0, 12)),
            "rule": chance.choice((0, flows.ALLOWED, flows.DENIED)),
        }
        made.append(flows.event(kind=5, point=1, source=source, destination=destination, **fields))
    return flows.joined(made)


def change(tables: Tables, chance: random.Random) -> None:
    """One row of one table, put or removed."""
    turn = chance.randrange(9)
    number, address = chance.choice((1001, 1002, 1003)), chance.choice(ADDRESSES)
    if turn == 0:
        tables.identities.put(IdentityRow(number, (f"k8s:app=a{chance.randrange(9)}",), "cluster"))
    elif turn == 1:
        tables.identities.delete(number)
    elif turn == 2:
        prefix = f"{address}/{128 if ':' in address else 32}"
        pod = f"p{chance.randrange(9)}"
        tables.ipcache.put(IpcacheRow(prefix, number, "pod", namespace="prod", pod=pod))
    elif turn == 3:
        tables.ipcache.put(IpcacheRow(chance.choice(PREFIXES), number, "cidr"))
    elif turn == 4:
        tables.ipcache.delete(chance.choice([*PREFIXES, f"{address}/32", f"{address}/128"]))
    elif turn == 5 and len(tables.pods):
        key = chance.choice(tables.pods.keys())
        row: PodRow | None = tables.pods.get(key)
        assert row is not None
        fields = {name: getattr(row, name) for name in row.__struct_fields__}
        fields |= {"workload_name": f"w{chance.randrange(9)}", "addresses": (address,)}
        tables.pods.put(PodRow(**fields))
    elif turn == 6 and len(tables.pods) > 2:
        tables.pods.delete(chance.choice(tables.pods.keys()))
    elif turn == 7 and len(tables.endpoints):
        endpoint: EndpointRow | None = tables.endpoints.get(chance.choice(tables.endpoints.keys()))
        assert endpoint is not None
        fields = {name: getattr(endpoint, name) for name in endpoint.__struct_fields__}
        family = "ipv6" if ":" in address else "ipv4"
        tables.endpoints.put(EndpointRow(**(fields | {family: address, "identity": number})))
    else:
        origin = Origin("CiliumNetworkPolicy", "prod", f"p{chance.randrange(9)}", "")
        tables.rules.put(RuleRow(flows.ALLOWED, Direction.INGRESS, (origin,), "spec.ingress[0]", False))


def stored(pipeline: Pipeline, records: flows.Records) -> list[str]:
    pipeline.take(records)
    rows = np.arange(pipeline.store.end - len(records), pipeline.store.end)
    return [str(response.flow) for response in Messages(pipeline.flows).responses(rows)]


@pytest.mark.parametrize("number", range(12))
def test_random_changes(number: int, make, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    monkeypatch.setattr("podwire.hubble.stale.MANY", chance.choice((0, 2, 256)))
    pipeline, _ = make()
    tables = pipeline.flows.tables
    for _ in range(25):
        records = events(chance)
        stored(pipeline, records)
        for _ in range(chance.randrange(4)):
            change(tables, chance)
        remembered = stored(pipeline, records)
        pipeline._enricher._parties.clear()
        pipeline._enricher._rules.clear()
        assert stored(pipeline, records) == remembered


def test_a_change_leaves_the_names_of_others_alone(make) -> None:
    pipeline, _ = make()
    stored(pipeline, flows.joined([flows.event(), flows.event(source="10.0.2.2", source_endpoint=0)]))
    parties = pipeline._enricher._parties
    before = parties.filled
    tables = pipeline.flows.tables
    tables.pods.delete(("prod", "unauthorized"))
    pipeline._enricher.follow()
    assert parties.filled == before > 0
    tables.remote_endpoints.delete((OWN, "prod", "backend-7d4b9-x2"))
    pipeline._enricher.follow()
    assert parties.filled == before - 1


def test_no_pod_gives_its_name_to_the_world(make) -> None:
    """The kernel did not know yet that the first was a pod's address."""
    pipeline, _ = make()
    unknown = {"source_identity": 2, "source_endpoint": 0}
    first = flows.event(source="10.0.2.2", **unknown)
    stored(pipeline, flows.joined([first, flows.event(source="203.0.113.9", **unknown)]))
    assert Messages(pipeline.flows).flow(pipeline.store.end - 1).source.pod_name == ""


@pytest.mark.parametrize("number", range(5))
def test_the_longest_prefix(number: int) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    prefixes, there = Prefixes(), dict[str, int]()
    for turn in range(1, 300):
        bits = chance.choice((0, 8, 9, 24, 31))
        text = f"{chance.choice((10, 11))}.{chance.randrange(3)}.0.{chance.randrange(4)}"
        if chance.random() < 0.5:
            bits, text = chance.choice((0, 16, 64, 127)), f"fd0{chance.randrange(2)}::{chance.randrange(4)}"
        prefix = str(ipaddress.ip_network(f"{text}/{bits}", strict=False))
        if chance.random() < 0.3:
            prefixes.remove(prefix)
            there.pop(prefix, None)
        else:
            prefixes.put(prefix, turn)
            there[prefix] = turn
        holding = [
            (network.prefixlen, there[str(network)])
            for network in map(ipaddress.ip_network, there)
            if network.version == ipaddress.ip_address(text).version and ipaddress.ip_address(text) in network
        ]
        assert prefixes.longest(text) == max(holding, default=(0, 0))[1]
