"""What is told about packets: nothing lost unaccounted, every field filled, every drop documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP

from podwire.abi.enums import Direction, DropReason, EndpointFlags, EventFlags, EventKind
from podwire.base.addresses import pack
from podwire.datapath import objects
from podwire.testing.world import DROPPED, PASS, REDIRECTED, World

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[3]


@pytest.fixture
def small_ring() -> Iterator[World]:
    with World(Path(objects.directory()), max_entries={"podwire_events": 4096}) as world:
        yield world


def test_emitted_is_stored_and_lost(small_ring: World, kit: Any) -> None:
    family = kit.Family(False)
    client = small_ring.pod(1, 1001, flags=EndpointFlags.NOT_READY)
    outcome = small_ring.from_pod(client, bytes(family.tcp(client, family.remote, 1, 2)), repeat=500)
    assert outcome.verdict == DROPPED
    stored = len(outcome.events)
    statistics = small_ring.statistics.per_cpu(0)
    emitted = sum(one.emitted for one in statistics)
    lost = sum(one.lost for one in statistics)
    assert emitted == 500 and lost and emitted == stored + lost
    assert small_ring.counted() == {(DropReason.ENDPOINT_NOT_READY, Direction.EGRESS): 500}
    # Numbers are of attempts, so a reader sees how many are missing between two of one CPU.
    for cpu in {int(one) for one in outcome.events["cpu"]}:
        mine = outcome.events[outcome.events["cpu"] == cpu]["sequence"]
        assert (mine[1:] == mine[:-1] + 1).all() and mine[-1] <= statistics[cpu].emitted


def test_a_drop_says_all_it_knows(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=8, flags=EndpointFlags.ENFORCE_INGRESS)
    packet = family.tcp(client, server, 4000, 80, "S", b"x" * 10)
    (drop,) = kit.of_kind(world.from_pod(client, bytes(packet)), EventKind.DROP)
    told = {
        name: drop[name].item() if not drop[name].ndim else bytes(drop[name]) for name in drop.dtype.names
    }
    assert told.pop("time") > 0 and told.pop("sequence") > 0
    told.pop("cpu")
    assert told == {
        "source": pack(family.of(client)),
        "destination": pack(family.of(server)),
        "original": bytes(16),
        "cookie": 0,
        "cgroup": 0,
        "source_identity": 1001,
        "destination_identity": 1002,
        "rule": 0,
        "policy": 8,
        "length": len(packet),
        "device": client.device,
        "source_port": 4000,
        "destination_port": 80,
        "original_port": 0,
        "proxy_port": 0,
        "source_endpoint": client.id,
        "destination_endpoint": server.id,
        "error": 0,
        "kind": EventKind.DROP,
        "point": 0,
        "reason": DropReason.POLICY_DENIED,
        "direction": Direction.INGRESS,
        "protocol": 6,
        "tcp_flags": 2,
        "icmp_type": 0,
        "icmp_code": 0,
        "match": 0,
        "flags": EventFlags.REPLY_KNOWN | (EventFlags.IPV6 if family.ipv6 else 0),
        "source_mac": client.mac,
        "destination_mac": client.host_mac,
    }


def test_audit_tells_and_lets_pass(kit: Any) -> None:
    with World(Path(objects.directory()), {"config_policy_audit": 1}) as world:
        family = kit.Family(False)
        client = world.pod(1, 1001)
        server = world.pod(2, 1002, policy=8, flags=EndpointFlags.ENFORCE_INGRESS)
        outcome = world.from_pod(client, bytes(family.tcp(client, server, 4000, 80)))
        assert outcome.verdict == REDIRECTED and not kit.drops(outcome)
        (verdict,) = kit.of_kind(outcome, EventKind.VERDICT)
        assert verdict["point"] == 1 and verdict["reason"] == DropReason.POLICY_DENIED


def test_events_can_be_off(kit: Any) -> None:
    off: dict[str, int | bytes] = {"config_trace_events": 0, "config_verdict_events": 0}
    with World(Path(objects.directory()), off) as world:
        family = kit.Family(False)
        client = world.pod(1, 1001)
        server = world.pod(2, 1002, policy=8, flags=EndpointFlags.ENFORCE_INGRESS)
        outcome = world.from_pod(client, bytes(family.tcp(client, server, 4000, 80)))
        assert [int(one["kind"]) for one in outcome.events] == [EventKind.DROP]


def test_the_tunnel(kit: Any, family: Any) -> None:
    with World(Path(objects.directory()), {"config_tunnel_device": 1, "config_tunnel_mtu": 1400}) as world:
        pod = world.pod(1, 1001)
        world.known(family.remote, 2002, "192.168.7.2")
        packet = family.udp(pod, family.remote, 4000, 53)
        outcome = world.from_pod(pod, bytes(packet))
        assert outcome.verdict == REDIRECTED
        (trace,) = outcome.events
        assert trace["point"] == 4 and trace["destination_identity"] == 2002
        # Beside the tunnel nothing leaves for another node's pod, whoever routed it there.
        bare = bytes(family.udp(family.node, family.remote, 4000, 53))
        leaving = world.run("to_network", bare, world.device("pw2"))
        assert kit.drops(leaving) == [DropReason.NO_TUNNEL_ENDPOINT]
        assert (
            world.run("to_network", bytes(family.udp(family.node, family.node[:-1] + "2", 1, 2)), 1).verdict
            == PASS
        )
        # What does not fit goes to the stack, which answers or cuts; one that will be cut fits by its parts.
        large = bytes(family.udp(pod, family.remote, 4000, 53, b"x" * 1400))
        assert world.from_pod(pod, large).verdict == PASS
        segments = bytes(family.tcp(pod, family.remote, 4000, 80, "A", b"x" * 2600))
        assert world.from_pod(pod, segments, gso_size=1300).verdict == REDIRECTED
        assert world.from_pod(pod, segments, gso_size=1390).verdict == PASS
        # Their headers count with all options.
        just = 1400 - (40 if family.ipv6 else 20) - 20
        assert world.from_pod(pod, segments, gso_size=just).verdict == REDIRECTED
        timed = family.tcp(pod, family.remote, 4001, 80, "A", b"x" * 2600)
        timed[TCP].options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 0))]
        timed = bytes(kit.fresh(timed))
        assert world.from_pod(pod, timed, gso_size=just).verdict == PASS
        assert world.from_pod(pod, timed, gso_size=just - 12).verdict == REDIRECTED
        # Around the tunnel nobody has that name; and what has no key did not come through it.
        lie = bytes(family.udp(family.remote, pod, 53, 4000))
        assert kit.drops(world.from_network(lie)) == [DropReason.INVALID_SOURCE_IP]
        keyless = world.run("from_overlay", lie, world.device("pw2"))
        assert kit.drops(keyless) == [DropReason.NO_TUNNEL_KEY]
        ours = world.run("from_overlay", bytes(packet), world.device("pw2"))
        assert kit.drops(ours) == [DropReason.INVALID_SOURCE_IP]
        # Whom the stack forwards for is not the node, and does not take its name.
        stranger = bytes(family.udp(family.node[:-1] + "9", family.node[:-1] + "8", 1, 2))
        forwarded = world.run("to_overlay", stranger, world.device("pw2"), received_on=world.device("pw4"))
        assert [int(one["source_identity"]) for one in forwarded.events] == [2]
        world.node(family.node)
        liar = bytes(family.udp(family.node, family.remote, 1, 2))
        forwarded = world.run("to_overlay", liar, world.device("pw2"), received_on=world.device("pw4"))
        assert kit.drops(forwarded) == [DropReason.INVALID_SOURCE_IP]
        assert world.run("to_overlay", liar, world.device("pw2")).verdict == PASS
        nowhere = bytes(family.udp(family.node, family.node[:-1] + "9", 1, 2))
        assert kit.drops(world.run("to_overlay", nowhere, world.device("pw2"))) == [
            DropReason.NO_TUNNEL_ENDPOINT
        ]


def test_every_drop_is_documented_and_goes_through_one_function() -> None:
    page = (ROOT / "docs" / "reference" / "drops.md").read_text()
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.M)}
    assert rows == {int(reason) for reason in DropReason}
    for path in sorted((ROOT / "bpf").rglob("*.[ch]")):
        if path.name != "drop.h":
            assert not re.search(r"return (TC_ACT_SHOT|XDP_DROP)", path.read_text()), path
