"""How long rules take to become policy entries: 1,000 rules and 3,000 identities.

Two shapes, for one endpoint that all rules select. *Crossed*, as in Cilium's own benchmark, whose
published figure is the target: each rule allows all 3,000 identities. *Apart*: each rule allows
three identities of its own on a port of its own, so that nothing is shared.

Rules are parsed and selectors resolved before (both happen once, when they change). Measured is
from the prepared rules to all entries of the endpoint's policy, and one identity more in it.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable

from measure import Row

from podwire.model.labels import Labels
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import Operator, Requirement, Selector
from podwire.policy import resolve
from podwire.state.tables import IdentityRow, PolicyRow
from podwire.testing.walk import Walk

RULES, IDENTITIES = 1000, 3000
LABELS: Labels = ("k8s:app=subject",)
SUBJECT = Selector((Requirement("k8s", "app", Operator.IN, ("subject",)),))


def rules(*, crossed: bool) -> list[Rule]:
    found = []
    for number in range(RULES):
        peer = _selector("group", "all" if crossed else str(number))
        ports = None if crossed else (Ports(6, 1024 + number, 1024 + number),)
        clause = Clause(Direction.INGRESS, Effect.ALLOW, 0, (peer,), ports, "spec.ingress[0]")
        origin = Origin("CiliumNetworkPolicy", "default", f"rule-{number}")
        found.append(Rule(origin, 0, SUBJECT, (clause,), True, False))
    return found


def rows(*, quick: bool) -> list[Row]:
    """Resolving in both shapes, and one identity more in a running node's tables."""
    rounds = 11 if quick else 51
    found = []
    for crossed, name in ((True, "policy 1k × 3k"), (False, "policy 1k × 3k, apart")):
        resolving, running = _Work(crossed=crossed), _Running(crossed=crossed)
        found.append(Row("control", name, "resolve", _median_ms(resolving.resolve, rounds), "ms"))
        found.append(Row("control", name, "add identity", _median_ms(running.one_more, rounds), "ms"))
    return found


class _Work:
    """Prepared rules and resolved selections of one shape."""

    def __init__(self, *, crossed: bool) -> None:
        counter = itertools.count(1)
        self.prepared = [resolve.prepare(one, lambda clause: next(counter)) for one in rules(crossed=crossed)]
        first = 1000
        self.selections = (
            {_selector("group", "all"): frozenset(range(first, first + IDENTITIES))}
            if crossed
            else {
                _selector("group", str(number)): frozenset(range(first + 3 * number, first + 3 * number + 3))
                for number in range(RULES)
            }
        )

    def resolve(self) -> None:
        chosen = resolve.obeyed(resolve.select(self.prepared, LABELS))
        policy = resolve.Policy(chosen, {}, {Direction.INGRESS: 1, Direction.EGRESS: 2})
        made = policy.tabulate(lambda selector: self.selections.get(selector, frozenset()))
        assert len(made.peers[Direction.INGRESS]) >= IDENTITIES, "not all identities got a class"


class _Running:
    """A node's stages with the same rules and identities in their tables; one identity more each time."""

    def __init__(self, *, crossed: bool) -> None:
        self.walk = Walk()
        self.crossed = crossed
        self.next = 1000
        self.walk.endpoint(1, "subject", {"app": "subject"})
        for number, one in enumerate(rules(crossed=crossed)):
            self.walk.tables.policies.put(
                PolicyRow(one.origin.kind, one.origin.namespace, one.origin.name, str(number), 1, (one,))
            )
        for _ in range(IDENTITIES):
            self._put()
        self.walk.settle()

    def one_more(self) -> None:
        """From the identity's row to the rows the kernel's maps are written from."""
        before = self.walk.tables.policy_peers.revision
        self._put()
        self.walk.settle()
        assert self.walk.tables.policy_peers.revision > before, "the policy did not take the identity"

    def _put(self) -> None:
        self.next += 1
        group = "all" if self.crossed else str(self.next % RULES)
        labels = (f"k8s:group={group}", "k8s:io.kubernetes.pod.namespace=default", f"k8s:one={self.next}")
        self.walk.tables.identities.put(IdentityRow(self.next, labels, "cluster"))


def _selector(key: str, value: str) -> Selector:
    return Selector((Requirement("k8s", key, Operator.IN, (value,)),))


def _median_ms(work: Callable[[], object], rounds: int) -> float:
    samples = []
    gc.collect()  # what was made to prepare; what the work itself makes counts
    for _ in range(rounds):
        begin = time.process_time()  # others of the machine do not count
        work()
        samples.append((time.process_time() - begin) * 1000)
    return statistics.median(samples)
