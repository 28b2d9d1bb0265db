"""What `explain` says of a flow agrees with the language's definition and with the compiled policy.

Stories of `test_walk`: policies and pods come and go, the shipped stages compute. Packets are decided
by the tables as the kernel looks them up, stored as flows, and explained; at once, and again after
the story went on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.property.test_walk import Story
from tests.property.test_worlds import VERDICTS
from tests.property.worlds import Packet

from podwire.abi.enums import EventFlags, PolicyVerdict
from podwire.base.config import AgentConfig
from podwire.hubble import explain as explaining
from podwire.hubble.misses import CHANGED
from podwire.hubble.pipeline import Pipeline
from podwire.model import protocol
from podwire.model.decide import NamedPorts, Outcome, decide
from podwire.model.flow import Verdict
from podwire.model.rule import Clause, Direction, Effect, Rule
from podwire.testing import flows

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
STORIES, STEPS = 60, 6
# Verdict of policy → Hubble's verdict and the reason that the kernel's record has.
SEEN = {
    PolicyVerdict.ALLOW: (Verdict.FORWARDED, 0),
    PolicyVerdict.DENY: (Verdict.DROPPED, 181),
    PolicyVerdict.DEFAULT_DENY: (Verdict.DROPPED, 133),
}


@pytest.fixture
def ring() -> Iterator[flows.MemoryRing]:
    ring = flows.MemoryRing()
    yield ring
    ring.close()


class Told(Story):
    """A story whose packets become flows."""

    def __init__(self, seed: int, ring: flows.MemoryRing, run_dir: Path) -> None:
        super().__init__(seed)
        self.ring = ring
        config = AgentConfig(node_name="n1", run_dir=str(run_dir), hubble_flow_capacity=1 << 10)
        self.pipeline = Pipeline(ring, ring.statistics, self.walk.tables, config, "n1")
        self.told: list[tuple[int, Packet]] = []  # row, packet
        self.counted: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.counted[what] = self.counted.get(what, 0) + 1

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(rule for row in self.walk.tables.policies for rule in row.rules)

    def send(self) -> None:
        """Packets between what is there, each decided by the tables and explained."""
        self.world.rules = self.rules
        numbers = {pod.name: number for number, pod in self.pods.items()}
        for packet in self.packets():
            address = packet.peer.address
            peer = self.walk.identity_at(address) if address else packet.peer.identity
            endpoint = numbers[packet.pod.name]
            verdict, match, rule = self.walk.verdict(
                endpoint, packet.direction, peer, packet.protocol, packet.port
            )
            row = self.pipeline.store.end
            self.ring.emit(self.record(packet, endpoint, peer, PolicyVerdict(verdict), match, rule))
            self.pipeline.drain()
            self.told.append((row, packet))
            self.check_told(self.explained(row), packet, PolicyVerdict(verdict))

    def record(
        self, packet: Packet, endpoint: int, peer: int, verdict: PolicyVerdict, match: int, rule: int
    ) -> Any:
        ingress = packet.direction is Direction.INGRESS
        mine, theirs = ("destination", "source") if ingress else ("source", "destination")
        own = f"10.9.0.{endpoint}"
        seen, reason = SEEN[verdict]
        fields: dict[str, Any] = {
            mine: own,
            theirs: packet.peer.address,
            f"{mine}_identity": self.identity(endpoint),
            f"{theirs}_identity": peer,
            f"{mine}_endpoint": endpoint,
            f"{theirs}_endpoint": 0,
            "destination_port": packet.port,
        }
        if packet.protocol in protocol.WITH_TYPES:
            fields |= {
                "destination_port": 0,
                "icmp_type": packet.port >> 8,
                "icmp_code": packet.port & 0xFF,
            }
        return flows.event(
            **fields,
            kind=5,
            point=int(seen),
            reason=reason,
            rule=rule,
            match=match,
            protocol=packet.protocol,
            direction=int(packet.direction),
            flags=int(EventFlags.IPV6) if ":" in packet.peer.address else 0,
        )

    def explained(self, row: int) -> dict[str, Any]:
        return explaining.explain_row(self.pipeline.flows, row)

    def check_told(self, found: dict[str, Any], packet: Packet, verdict: PolicyVerdict) -> None:
        decision = self.world.expected(packet)
        assert VERDICTS[decision.outcome] == verdict
        told = found["decision"]
        self.count(decision.outcome.name)
        if decision.outcome is Outcome.UNRESTRICTED:
            assert told is None and "No policy was asked" in found["text"]
            return
        named = {(one["kind"], one["namespace"], one["name"]) for one in told["policies"]}
        because = [
            ((rule.origin.kind, rule.origin.namespace, rule.origin.name), clause)
            for rule, clause in decision.because
        ]
        if decision.outcome is Outcome.DEFAULT_DENIED:
            assert told["default_deny"] and named == {origin for origin, _ in because}
            self.check_misses(found, packet, packet.pod.ports, packet.peer.ports)
            assert CHANGED not in found["text"], "nothing has changed"
            return
        assert {(*named, told["clause"])} <= {
            (origin, clause.path.removeprefix("spec.")) for origin, clause in because if clause is not None
        }
        word = "Allowed" if decision.outcome is Outcome.ALLOWED else "Denied"
        assert f"{word} for {packet.direction.word} by" in found["text"]

    def check_misses(
        self, found: dict[str, Any], packet: Packet, own: NamedPorts, theirs: NamedPorts
    ) -> None:
        """Each miss lacks what the definition says, asked of that clause alone; the nearest come first."""
        expected = []
        named = own if packet.direction is Direction.INGRESS else theirs
        for rule in self.rules:
            if rule.subject.matches(packet.pod.labels):
                for clause in rule.clauses:
                    if clause.direction is packet.direction and clause.effect is Effect.ALLOW:
                        lacks = self.lacks(rule, clause, packet, named)
                        expected.append((str(rule.origin), clause.path.removeprefix("spec."), lacks))
        told = [(one["policy"], one["clause"], tuple(one["lacks"])) for one in found["near_misses"]]
        assert len(told) + found["misses_left_out"] == len(expected)
        assert not found["misses_left_out"] and sorted(told) == sorted(expected)
        assert [len(lacks) for *_, lacks in told] == sorted(len(lacks) for *_, lacks in told)
        for one in found["near_misses"]:
            assert (one["why"] == CHANGED) == (not one["lacks"]), one
            self.count("+".join(one["lacks"]) or "matches now")

    @staticmethod
    def lacks(rule: Rule, clause: Clause, packet: Packet, named: NamedPorts) -> tuple[str, ...]:
        """What is missing, asked of `decide` with the other half of the clause left open."""

        def allows(peers: Any, ports: Any) -> bool:
            alone = Clause(clause.direction, clause.effect, 0, peers, ports, clause.path)
            only = Rule(rule.origin, 0, rule.subject, (alone,), True, True)
            peer = packet.peer.labels
            # The node reaches its pods whatever rules say, and is never denied by default.
            asked = packet.pod.labels, packet.direction, peer, packet.protocol, packet.port
            return decide([only], *asked, named=named).outcome is Outcome.ALLOWED

        lacking = []
        if not allows(clause.peers, None):
            lacking.append("peer")
        if not allows(None, clause.ports):
            lacking.append("ports")
        assert allows(clause.peers, clause.ports) == (not lacking)
        return tuple(lacking)

    def look_back(self) -> None:
        """Explain what was stored before the story went on: by what the rules and the pods are now."""
        there = {pod.name: pod for pod in self.pods.values()}
        for row, packet in self.told:
            found = self.explained(row)
            if found["decision"] is None or not found["decision"]["default_deny"]:
                continue
            pod = there.get(packet.pod.name)
            own = pod.ports if pod is not None and pod.labels == packet.pod.labels else {}
            theirs: dict[str, frozenset[tuple[int, int]]] = {}
            for other in self.pods.values():
                if other.labels == packet.peer.labels:
                    for name, ports in other.ports.items():
                        theirs[name] = theirs.get(name, frozenset()) | ports
            self.check_misses(found, packet, own, theirs)


def tell(seeds: range, ring: flows.MemoryRing, run_dir: Path) -> dict[str, int]:
    """Tell stories; how often each thing was seen."""
    counted: dict[str, int] = {}
    for seed in seeds:
        story = Told(seed, ring, run_dir)
        try:
            for _ in range(STEPS):
                for _ in range(story.random.randint(1, 3)):
                    story.step()
                story.walk.settle()
                story.look_back()
                story.send()
        except BaseException:
            print(f"the story of seed {seed}")
            raise
        for what, count in story.counted.items():
            counted[what] = counted.get(what, 0) + count
    return counted


def test_explanations_say_what_is_so(ring: flows.MemoryRing, tmp_path: Path) -> None:
    print(f"PODWIRE_SEED={SEED}")
    assert tell(range(SEED, SEED + STORIES), ring, tmp_path)


def test_the_stories_are_worth_telling(ring: flows.MemoryRing, tmp_path: Path) -> None:
    """Each outcome, each way to miss, and changes that make a clause match later."""
    counted = tell(range(1_000_000, 1_000_040), ring, tmp_path)
    wanted = {*Outcome.__members__, "peer", "ports", "peer+ports", "matches now"}
    assert all(counted.get(what, 0) > 20 for what in wanted), counted
