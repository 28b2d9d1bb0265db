"""In random small worlds, the kernel says what the language says.

The compiled tables of each world go into the maps through the functions that the agent's writer uses; each
packet then goes through the shipped programs. Three answers must be one: the definition of the language
(`podwire.model.decide`), the tables looked up in Python, and the kernel's verdict with its rule.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from struct import pack as packed
from typing import Any

import pytest
from tests.patience import cases
from tests.property.test_worlds import VERDICTS, reasons
from tests.property.worlds import ICMP, Compiled, Packet, World

from podwire.abi.enums import DropReason, EndpointFlags, EventKind, PolicyVerdict
from podwire.base.addresses import pack
from podwire.datapath import objects, rows
from podwire.model import identity
from podwire.model.decide import Outcome
from podwire.model.rule import Direction
from podwire.state.tables import EntryRow, IpcacheRow, PeerRow
from podwire.testing import world as kernel

pytestmark = pytest.mark.kernel

CASES = cases(12_000)
PACKETS = 10
SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
OBJECTS = Path(objects.directory())

# Where peers without an address of their own are: (IPv4, IPv6).
PLACES = {
    identity.HOST: ("172.18.0.1", "fd00:172::1"),
    identity.REMOTE_NODE: ("172.18.0.2", "fd00:172::2"),
    identity.KUBE_APISERVER: ("172.18.0.3", "fd00:172::3"),
    identity.UNMANAGED: ("172.18.0.4", "fd00:172::4"),
}
STRANGER = 65_000  # an identity no policy has heard of
STRANGER_PLACE = ("172.18.0.5", "fd00:172::5")
REASONS = {
    PolicyVerdict.DENY: DropReason.POLICY_DENY,
    PolicyVerdict.DEFAULT_DENY: DropReason.POLICY_DENIED,
}
ETHERNET = bytes.fromhex("02aa00000001 02aa00000002")


@pytest.fixture(scope="module")
def loaded() -> Iterator[kernel.World]:
    with kernel.World(OBJECTS) as made:
        yield made


def frame(source: str, destination: str, protocol: int, port: int, number: int, macs: bytes) -> bytes:
    """The first packet of a connection; `number` tells it from others. No checksums: nobody asks."""
    if protocol in ICMP:
        segment = packed("!BBHHH", port >> 8, port & 255, 0, number, 1)
    elif protocol == 6:
        segment = packed("!HHIIBBHHH", number, port, 1, 0, 0x50, 0x02, 1000, 0, 0)
    else:
        segment = packed("!HHHH", number, port, 8, 0)
    if ":" in source:
        head = packed("!IHBB", 6 << 28, len(segment), protocol, 64) + pack(source) + pack(destination)
        return macs + b"\x86\xdd" + head + segment
    head = packed("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, protocol, 0)
    return macs + b"\x08\x00" + head + pack(source)[12:] + pack(destination)[12:] + segment


class InKernel:
    """One world's tables in the maps, and its pods on the devices."""

    def __init__(self, loaded: kernel.World, compiled: Compiled) -> None:
        self.loaded, self.compiled = loaded, compiled
        self.maps = {name: table.untyped() for name, table in loaded.maps.items()}
        loaded.reset()
        self._write_tables()
        self.pods = {}
        for number, pod in enumerate(compiled.world.pods, 1):
            policy = compiled.policies[pod.name]
            flags = EndpointFlags(0)
            if policy.enforced(Direction.INGRESS):
                flags |= EndpointFlags.ENFORCE_INGRESS
            if policy.enforced(Direction.EGRESS):
                flags |= EndpointFlags.ENFORCE_EGRESS
            self.pods[pod.name] = loaded.pod(number, pod.identity, policy=policy.number, flags=flags)
        self.by_identity = {made.identity: made for made in self.pods.values()}
        for address in PLACES[identity.HOST]:
            loaded.node(address)

    def close(self) -> None:
        for table in self.maps.values():
            table.close()

    def _put(self, name: str, entries: Any) -> None:
        self.maps[name].put_many(entry for row in entries for entry in row.items())

    def _write_tables(self) -> None:
        peers, entries = [], []
        for policy, made in self.compiled.tables.items():
            for direction, classes in made.peers.items():
                peers += [PeerRow(policy, direction, one, number) for one, number in classes.items()]
            for (direction, peer_class), cells in made.cells.items():
                entries += [
                    EntryRow(
                        policy,
                        peer_class,
                        direction,
                        *cell[:3],
                        cell.verdict,
                        cell.match,
                        cell.redirect,
                        cell.rule,
                    )
                    for cell in cells
                ]
        known = [IpcacheRow(prefix, number, "cidr") for prefix, number in self.compiled.prefixes.items()]
        for number, places in (*PLACES.items(), (STRANGER, STRANGER_PLACE)):
            known += [
                IpcacheRow(f"{place}/{32 if '.' in place else 128}", number, "node") for place in places
            ]
        self._put("podwire_policy", map(rows.policy_entry, entries))
        self._put("podwire_policy_peers", [rows.policy_peers(peers)])
        self._put("podwire_ipcache", map(rows.ipcache_exact, known))
        self._put("podwire_ipcache_prefixes", map(rows.ipcache_prefix, known))

    def ask(self, packet: Packet, number: int) -> tuple[int, int, int] | None:
        """(verdict, match, rule) of the packet, 0 for what was not asked; None if it cannot exist."""
        pod = self.pods[packet.pod.name]
        ipv6 = packet.protocol == 58 if packet.protocol in ICMP else number % 2 == 1
        if packet.peer.address:
            if (":" in packet.peer.address) != ipv6 and packet.protocol in ICMP:
                return None
            ipv6 = ":" in packet.peer.address
            there = packet.peer.address
        elif packet.peer.identity in self.by_identity:
            there = self.by_identity[packet.peer.identity].address(ipv6)
            if there == pod.address(ipv6):
                return None
        else:
            there = PLACES.get(packet.peer.identity, STRANGER_PLACE)[ipv6]
        here = pod.address(ipv6)
        if packet.protocol in ICMP and packet.port not in (0x0800, 0x8000):
            # No number tells two of these apart: the second one would be of a known connection.
            self.loaded.maps["podwire_conntrack"].clear()
        if packet.direction is Direction.EGRESS:
            sent = frame(here, there, packet.protocol, packet.port, number, pod.host_mac + pod.mac)
            outcome = self.loaded.from_pod(pod, sent)
        else:
            sent = frame(there, here, packet.protocol, packet.port, number, ETHERNET)
            sender = self.by_identity.get(packet.peer.identity)
            on = sender.device if sender is not None else self.loaded.device(kernel.UNDERLAY)
            if packet.peer.identity == identity.HOST:
                on = 0
            outcome = self.loaded.to_pod(pod, sent, received_on=on)
        told = [
            event
            for event in outcome.events
            if event["kind"] == EventKind.VERDICT and event["direction"] == packet.direction
        ]
        if not told:
            drops = [event["reason"] for event in outcome.events if event["kind"] == EventKind.DROP]
            assert drops in ([], [DropReason.POLICY_DENIED], [DropReason.POLICY_DENY]), drops
            return PolicyVerdict.ALLOW, 0, 0
        event = told[0]
        verdict = PolicyVerdict.ALLOW
        if event["point"] == 2:
            verdict = next(one for one, reason in REASONS.items() if reason == event["reason"])
        return verdict, int(event["match"]), int(event["rule"])


# ICMP messages that are asked about for what they are; others are about other packets.
ICMP_BEGINNINGS = {1: (0x0800, 0x2A00, 0xFF00), 58: (0x8000, 0xFF00)}
SCTP = 132  # the datapath lets none of it pass, whatever policy says


def askable(packet: Packet) -> bool:
    """Whether the kernel asks policy about the packet for what it is itself."""
    return packet.protocol != SCTP and packet.port in ICMP_BEGINNINGS.get(packet.protocol, (packet.port,))


def test_the_kernel_says_what_the_rules_say(loaded: kernel.World) -> None:
    print(f"PODWIRE_SEED={SEED}")
    asked, seed = 0, SEED
    while asked < CASES:
        world = World.of(seed)
        seed += 1
        compiled = Compiled(world)
        running = InKernel(loaded, compiled)
        try:
            for number in range(1, PACKETS + 1):
                packet = world.packet()
                if askable(packet) and (found := running.ask(packet, 1024 + number)) is not None:
                    asked += 1
                    check(compiled, packet, found)
        finally:
            running.close()


def check(compiled: Compiled, packet: Packet, found: tuple[int, int, int]) -> None:
    decision = compiled.world.expected(packet)
    cell = compiled.verdict(packet)
    about = (compiled.world.seed, compiled.world.objects, packet, decision, cell, found)
    assert cell.verdict == VERDICTS[decision.outcome] and cell.redirect == decision.redirect, about
    # There is no proxy, and what is to pass one must not pass without.
    assert found[0] == (PolicyVerdict.DENY if cell.redirect else cell.verdict), about
    if packet.direction is Direction.INGRESS and packet.peer.identity == identity.HOST:
        return  # what the node itself sends is not asked about
    assert found[1:] == (cell.match, cell.rule), about
    if decision.outcome in (Outcome.ALLOWED, Outcome.DENIED):
        assert found[2] in reasons(compiled, decision, packet), about


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_what_allows_one_kind_of_icmp_answers_for_no_other(loaded: kernel.World, ipv6: bool) -> None:
    loaded.reset()
    both = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
    pod = loaded.pod(1, 1000, policy=7, flags=both)
    protocol, allowed, other = 58 if ipv6 else 1, 0xA000, 0xA100
    loaded.rule(7, Direction.EGRESS, protocol=protocol, port=allowed)
    here, there = pod.address(ipv6), "2001:db8::1" if ipv6 else "8.8.8.8"
    ours = pod.host_mac + pod.mac

    def sent(kind: int, number: int) -> list[int]:
        outcome = loaded.from_pod(pod, frame(here, there, protocol, kind, number, ours))
        return [int(event["reason"]) for event in outcome.events if event["kind"] == EventKind.DROP]

    def received(kind: int, number: int) -> list[int]:
        came = frame(there, here, protocol, kind, number, ETHERNET)
        outcome = loaded.to_pod(pod, came, received_on=loaded.device(kernel.UNDERLAY))
        return [int(event["reason"]) for event in outcome.events if event["kind"] == EventKind.DROP]

    assert sent(allowed, 1) == []
    assert sent(other, 1) == [DropReason.POLICY_DENIED]
    assert received(allowed, 1) == received(other, 1) == [DropReason.POLICY_DENIED]
