"""Objects and pods come, change and go in any order: after each step the tables say what the rules say.

Where `test_worlds` compiles each world at once, here the stages of a node follow changes by difference.
"""

from __future__ import annotations

import os
import random
from types import SimpleNamespace

import pytest
from tests.property.test_worlds import VERDICTS
from tests.property.worlds import NAMESPACES, Packet, Peer, Pod, World

from podwire.abi.enums import PolicyVerdict
from podwire.model import identity
from podwire.model.decide import Outcome
from podwire.model.rule import Direction
from podwire.policy import number, resolve
from podwire.state.tables import ContainerPort, PodRow
from podwire.testing.walk import Walk

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
STORIES, STEPS, PACKETS = 250, 12, 15


class Story:
    """A node's stages, and the world as it is at the moment."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.donors = [World.of(seed * 7 + number) for number in range(4)]
        self.world = World.of(seed)
        self.world.objects, self.world.rules, self.world.pods = [], (), []
        self.walk = Walk(ipv6=True)
        self.objects: dict[str, dict[str, object]] = {}
        self.pods: dict[int, Pod] = {}

    def step(self) -> None:
        """Something changes."""
        choice = self.random.random()
        donor = self.random.choice(self.donors)
        if choice < 0.35:
            self._apply(self.random.choice(donor.objects))
        elif choice < 0.5 and self.objects:
            self._forget(self.random.choice(sorted(self.objects)))
        elif choice < 0.85:
            self._put_pod(self.random.randint(1, 5), self.random.choice(donor.pods))
        elif self.pods:
            self._remove_pod(self.random.choice(sorted(self.pods)))

    def _apply(self, policy: dict[str, object]) -> None:
        self.objects[f"{policy['kind']}/{policy['metadata']}"] = policy
        self.walk.apply(policy)

    def _forget(self, name: str) -> None:
        policy = self.objects.pop(name)
        metadata = policy["metadata"]
        assert isinstance(metadata, dict)
        self.walk.tables.policies.delete((policy["kind"], metadata.get("namespace", ""), metadata["name"]))

    def _put_pod(self, number: int, pod: Pod) -> None:
        self._remove_pod(number)
        own = dict(text.removeprefix("k8s:").split("=", 1) for text in pod.labels if text.startswith("k8s:"))
        ports = tuple(
            ContainerPort(name, port, protocol)
            for name, found in pod.ports.items()
            for protocol, port in found
        )
        row = self.walk.endpoint(
            number,
            f"pod{number}",
            {key: value for key, value in own.items() if key in ("app", "tier")},
            namespace=pod.namespace,
            namespace_labels=NAMESPACES[pod.namespace],
            ipv4=f"10.9.0.{number}",
            ports=ports,
        )
        self.walk.tables.pods.put(
            PodRow(pod.namespace, f"pod{number}", "", "n1", (row.ipv4,), {}, "", False, "Running", ports)
        )
        self.pods[number] = Pod(pod.namespace, f"pod{number}", 0, row.labels, pod.ports)

    def _remove_pod(self, number: int) -> None:
        pod = self.pods.pop(number, None)
        if pod is not None:
            self.walk.tables.endpoints.delete(number)
            self.walk.tables.pods.delete((pod.namespace, pod.name))

    def packets(self) -> list[Packet]:
        """Between what is there now."""
        found = []
        self.world.pods = list(self.pods.values())
        for _ in range(PACKETS if self.pods else 0):
            number = self.random.choice(sorted(self.pods))
            packet = self.world.packet()
            peer = packet.peer
            if peer.labels is None or not (peer.address or peer.identity <= identity.INGRESS):
                other = self.random.choice(sorted(self.pods))
                peer = Peer(self.identity(other), self.pods[other].labels, ports=self.named(other))
            found.append(Packet(self.pods[number], packet.direction, peer, packet.protocol, packet.port))
        return found

    def identity(self, number: int) -> int:
        row = self.walk.tables.endpoints.get(number)
        assert row is not None and row.identity, "an endpoint without identity"
        return row.identity

    def named(self, number: int) -> dict[str, frozenset[tuple[int, int]]]:
        """Ports by name of all pods of the same identity: a name means whatever any of them means."""
        found: dict[str, frozenset[tuple[int, int]]] = {}
        for pod in self.pods.values():
            if pod.labels == self.pods[number].labels:
                for name, ports in pod.ports.items():
                    found[name] = found.get(name, frozenset()) | ports
        return found

    def check(self) -> None:
        rules = tuple(rule for row in self.walk.tables.policies for rule in row.rules)
        self.world.rules = rules
        numbers = {pod.name: number for number, pod in self.pods.items()}
        for packet in self.packets():
            decision = self.world.expected(packet)
            there = (
                self.walk.identity_at(packet.peer.address) if packet.peer.address else packet.peer.identity
            )
            verdict, _, rule = self.walk.verdict(
                numbers[packet.pod.name], packet.direction, there, packet.protocol, packet.port
            )
            assert verdict == VERDICTS[decision.outcome], (packet, decision, list(self.objects.values()))
            self.check_reason(decision.outcome, rule, packet.direction, decision.because)

    def check_reason(self, outcome: Outcome, number: int, direction: Direction, because: object) -> None:
        row = self.walk.tables.rules.get(number)
        assert isinstance(because, tuple)
        if outcome is Outcome.UNRESTRICTED:
            assert number == 0
        elif outcome is Outcome.DEFAULT_DENIED:
            assert row is not None and row.default_deny and row.direction == direction
            assert set(row.origins) == {rule.origin for rule, _ in because}
        else:
            assert row is not None
            said = {(rule.origin, clause.path.removeprefix("spec.")) for rule, clause in because}
            assert (row.origins[0], row.clause) in said

    def check_leftovers(self) -> None:
        """Nothing in the tables that nothing needs."""
        tables = self.walk.tables
        used = {row.policy for row in tables.endpoint_policies}
        assert {row.policy for row in tables.policy_entries} | {
            row.policy for row in tables.policy_peers
        } <= used
        assert {row.endpoint for row in tables.endpoint_policies} == set(self.pods)
        classes = {(row.policy, row.direction, row.peer_class) for row in tables.policy_peers}
        for entry in tables.policy_entries:
            place = (entry.policy, entry.direction, entry.peer_class)
            assert entry.peer_class == 0 or place in classes, "entries of a class nobody is in"
            assert entry.verdict in set(PolicyVerdict)


def test_the_tables_follow() -> None:
    print(f"PODWIRE_SEED={SEED}")
    for one in range(STORIES):
        story = Story(SEED + one)
        try:
            for _ in range(STEPS):
                for _ in range(story.random.randint(1, 3)):
                    story.step()
                story.walk.settle()
                story.check()
                story.check_leftovers()
        except BaseException:
            print(f"the story of seed {SEED + one}")
            raise


def test_numbers_that_collide_change_nothing_but_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 5 bits for the numbers of policies and classes these collide all the time."""
    print(f"PODWIRE_SEED={SEED}")
    few = SimpleNamespace(of=lambda content, salt=0: number.of(content, salt) & 31 or 1, digest=number.digest)
    monkeypatch.setattr(resolve, "number", few)
    collisions = 0
    for one in range(600):
        if one >= 60 and collisions > 20:
            break  # how often they collide is a matter of chance
        story = Story(SEED + one)
        for _ in range(STEPS):
            story.step()
            story.walk.settle()
            story.check()
            story.check_leftovers()
            collisions += sum(live.policy.salt > 0 for live in story.walk.compute._live.values())
    assert collisions > 20, "the test tests nothing"


def test_in_the_end_nothing_is_left() -> None:
    print(f"PODWIRE_SEED={SEED}")
    for one in range(50):
        story = Story(SEED + one)
        for _ in range(10):
            story.step()
            story.walk.settle()
        for name in sorted(story.objects):
            story._forget(name)
        for pod in sorted(story.pods):
            story._remove_pod(pod)
        story.walk.settle()
        tables = story.walk.tables
        assert not len(tables.policy_entries) and not len(tables.policy_peers)
        assert not len(tables.endpoint_policies) and len(tables.selections) == 1
        assert {row.prefix for row in tables.ipcache} == {"0.0.0.0/0", "::/0"}
        assert not [row for row in tables.identities if row.source in ("local", "retired")]
        compute = story.walk.compute
        assert not compute._live and not compute._by_number and not compute._using and not compute._groups


def test_the_order_of_changes_makes_no_difference() -> None:
    """Who starts now has the same numbers as who was there all the time."""
    print(f"PODWIRE_SEED={SEED}")
    for one in range(60):
        story = Story(SEED + one)
        for _ in range(15):
            story.step()
            story.walk.settle()
        late = Walk(ipv6=True, identities=story.walk.identities)
        late.prefixes._restored = {
            row.prefix: row.identity for row in story.walk.tables.ipcache if row.source == "cidr"
        }
        late.apply(*story.objects.values())
        for pod in story.walk.tables.pods:
            late.tables.pods.put(pod)
        for row in story.walk.tables.endpoints:
            late.tables.endpoints.put(row)
        late.settle()
        for name in ("policy_entries", "policy_peers", "ipcache"):
            assert set(late.tables.named(name)) == set(story.walk.tables.named(name)), name
        was = {row.endpoint: row.policy for row in story.walk.tables.endpoint_policies}
        assert {row.endpoint: row.policy for row in late.tables.endpoint_policies} == was
