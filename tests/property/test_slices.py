"""Stages work in slices, and tables change between any two: in the end they say what they say from nothing.

Identities come, go and are relabelled, selectors and rules too, endpoints as well, while each stage is
somewhere in the middle of what it does. At no moment an endpoint has a policy without entries, or a peer of a
class that has none; at rest, all tables are those of a node that starts then.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

from podwire.model import labels
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import EVERYTHING, NOTHING, Operator, Requirement, Selector, equals, inside
from podwire.state.table import Watch
from podwire.state.tables import IdentityRow, PolicyRow
from podwire.testing.walk import Walk

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
STORIES, CHANGES, TURNS = 120, 40, 12
KEYS, VALUES = ("app", "tier"), ("web", "db", "job")
PREFIXES = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/8", "192.168.0.0/16")
NAMES = tuple(f"p{number}" for number in range(5))
IDENTITIES = range(300, 312)


class Story:
    """A walk whose stages are stepped piece by piece, in any order."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.walk = Walk(ipv6=True)
        walk, tables = self.walk, self.walk.tables
        walk.close()
        self.stages: list[tuple[Watch, Callable[..., Iterator[None]]]] = [
            (walk.prefixes.watch(), walk.prefixes.steps),
            (Watch(tables.endpoints, tables.identities), self._allocate),
            (Watch(tables.policies, tables.identities), walk.select.steps),
            (Watch(*walk.compute.reads()), walk.compute.steps),
            (Watch(*walk.ipcache.reads()), walk.ipcache.steps),
        ]
        self.at_work: dict[int, Iterator[None]] = {}

    def _allocate(self, *batches: Any) -> Iterator[None]:
        self.walk._allocate(*batches)
        yield

    # --- what changes

    def change(self) -> None:
        tables, chance = self.walk.tables, self.chance
        choice = chance.random()
        if choice < 0.35:
            tables.identities.put(IdentityRow(chance.choice(IDENTITIES), self.labels(), "cluster"))
        elif choice < 0.5:
            number = chance.choice(IDENTITIES)
            if not tables.endpoints.by("identity", number):
                tables.identities.delete(number)
        elif choice < 0.75:
            name = chance.choice(NAMES)
            tables.policies.put(PolicyRow("test", "", name, "", 1, self.rules(name)))
        elif choice < 0.85:
            tables.policies.delete(("test", "", chance.choice(NAMES)))
        elif choice < 0.95:
            self.walk.endpoint(chance.randint(1, 4), "pod", self.pod_labels())
        else:
            tables.endpoints.delete(chance.randint(1, 4))

    def pod_labels(self) -> dict[str, str]:
        return {key: self.chance.choice(VALUES) for key in KEYS if self.chance.random() < 0.8}

    def labels(self) -> labels.Labels:
        return Walk.labels(self.pod_labels(), self.chance.choice(("default", "other")))

    def selector(self) -> Selector:
        chance = self.chance
        if chance.random() < 0.1:
            return chance.choice((EVERYTHING, NOTHING))
        if chance.random() < 0.2:
            return Selector(inside(chance.choice(PREFIXES)))
        found = {equals("k8s", labels.NAMESPACE, "default")} if chance.random() < 0.4 else set()
        for _ in range(chance.randint(1, 2)):
            operator = chance.choice(list(Operator))
            values = tuple(sorted(chance.sample(VALUES, 2))) if operator in ("In", "NotIn") else ()
            found.add(Requirement(chance.choice(("k8s", "any")), chance.choice(KEYS), operator, values))
        return Selector(tuple(sorted(found)))

    def rules(self, name: str) -> tuple[Rule, ...]:
        clauses = tuple(
            Clause(
                self.chance.choice(list(Direction)),
                self.chance.choice((Effect.ALLOW, Effect.ALLOW, Effect.DENY)),
                number,
                tuple(dict.fromkeys(self.selector() for _ in range(self.chance.randint(1, 2)))),
                self.chance.choice((None, (Ports(6, 80, 80),), (Ports(17, 53, 60),))),
                "",
            )
            for number in range(self.chance.randint(1, 3))
        )
        subject = self.chance.choice((EVERYTHING, Selector((equals("k8s", "app", "web"),))))
        return (Rule(Origin("test", "", name), 0, subject, clauses, True, True),)

    # --- who works

    def turn(self) -> None:
        """One stage goes on with what it does, or begins something."""
        place = self.chance.randrange(len(self.stages))
        work = self.at_work.get(place)
        if work is None:
            watch, steps = self.stages[place]
            if not watch.pending():
                return
            work = self.at_work[place] = steps(*watch.take())
        for _ in range(self.chance.randint(1, 6)):
            try:
                next(work)
            except StopIteration:
                del self.at_work[place]
                break
        self.check_meanwhile()

    def rest(self) -> None:
        for _ in range(200_000):
            if not self.at_work and not any(watch.pending() for watch, _ in self.stages):
                return
            self.turn()
        raise AssertionError("the stages do not come to rest")

    def check_meanwhile(self) -> None:
        """What an endpoint obeys is whole."""
        tables = self.walk.tables
        for row in tables.endpoint_policies:
            sides = ((Direction.INGRESS, row.enforce_ingress), (Direction.EGRESS, row.enforce_egress))
            for direction in (one for one, enforced in sides if enforced):
                named = tables.policy_peers.of(row.policy, direction)
                for peer_class in {0, *named.values()}:
                    there = tables.policy_entries.by("class", (row.policy, direction, peer_class))
                    assert there, (row, direction, peer_class)

    def check(self) -> None:
        """The same as a walk that starts with these rows."""
        tables = self.walk.tables
        late = Walk(ipv6=True, restored={row.prefix: row.identity for row in tables.ipcache})
        for identity in tables.identities:
            if identity.source == "cluster":
                late.tables.identities.put(identity)
        for policy in tables.policies:
            late.tables.policies.put(policy)
        for endpoint in tables.endpoints:
            late.tables.endpoints.put(endpoint)
        late.settle()
        for name in ("selections", "policy_entries", "policy_peers", "ipcache", "endpoints"):
            assert set(late.tables.named(name)) == set(tables.named(name)), name
        was = {row.endpoint: row.policy for row in tables.endpoint_policies}
        assert {row.endpoint: row.policy for row in late.tables.endpoint_policies} == was
        for row in tables.selections:
            found = {one.number for one in tables.identities if row.selector.matches(one.labels)}
            assert row.identities == found, str(row.selector)


def test_whatever_changes_between_slices_the_end_is_the_same() -> None:
    print(f"PODWIRE_SEED={SEED}")
    for number in range(STORIES):
        story = Story(SEED + number)
        try:
            for _ in range(CHANGES):
                story.change()
                for _ in range(story.chance.randint(0, TURNS)):
                    story.turn()
                if story.chance.random() < 0.05:
                    story.rest()
                    story.check()
            story.rest()
            story.check()
        except BaseException:
            print(f"the story of seed {SEED + number}")
            raise


def test_slices_are_taken() -> None:
    """Else the story above tells nothing."""
    story = Story(SEED)
    for _ in range(CHANGES):
        story.change()
    watch, steps = story.stages[2]
    assert sum(1 for _ in steps(*watch.take())) > 10
