"""Every pair of clauses in a small world: the compiled cells say what the language says."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tests.property.test_worlds import VERDICTS
from tests.property.worlds import lookup

from podwire.model.decide import Outcome, decide
from podwire.model.labels import Labels
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import EVERYTHING, Selector, equals
from podwire.policy import number
from podwire.policy.resolve import Policy, Prepared, prepare, rule_content

X = Selector((equals("k8s", "app", "x"),))
SUBJECT: Labels = ("k8s:app=subject",)
LABELS: dict[int, Labels] = {300: ("k8s:app=x",), 301: ("k8s:app=y",)}
PEERS: tuple[tuple[Selector, ...] | None, ...] = (None, (X,), ())
PORTS: tuple[tuple[Ports, ...] | None, ...] = (
    None,
    (Ports(6, 80, 80),),
    (Ports(6, 80, 81),),
    (Ports(6),),
    (Ports(0, 79, 65535),),
    (Ports(17, 80, 80), Ports(1, 0x0800, 0x08FF)),
)
SAYS = ((Effect.ALLOW, 2), (Effect.ALLOW, 1), (Effect.ALLOW, 0), (Effect.DENY, 0))
PACKETS = [
    (protocol, port)
    for protocol, ports in ((6, (0, 79, 80, 81, 82, 65535)), (17, (79, 80, 81)), (1, (0, 0x0800)), (50, (0,)))
    for port in ports
]


def rules(name: str, says: Iterable[tuple[Effect, int]]) -> list[tuple[Rule, Prepared]]:
    found = []
    kinds = itertools.product(says, PEERS, PORTS, (False, True))
    for (effect, redirect), peers, ports, restricting in kinds:
        clause = Clause(Direction.INGRESS, effect, 0, peers, ports, "spec.ingress[0]", redirect)
        rule = Rule(Origin("test", "", name), 0, EVERYTHING, (clause,), restricting, False)
        content = rule_content(rule.origin, clause.direction, effect, 0, 0)
        found.append((rule, prepare(rule, lambda _, content=content: number.of(content))))  # type: ignore[misc]
    return found


def selected(selector: Selector) -> frozenset[int]:
    return frozenset(one for one, labels in LABELS.items() if selector.matches(labels))


def test_all_pairs() -> None:
    asked = 0
    for (one, first), (two, second) in itertools.product(rules("one", SAYS), rules("two", SAYS[1:])):
        policy = Policy((first, second), {}, {Direction.INGRESS: 7})
        tables = policy.tabulate(selected)
        for peer in (300, 301, None):
            peer_class = tables.peers.get(Direction.INGRESS, {}).get(peer or 0, 0)
            cells = tables.cells[Direction.INGRESS, peer_class]
            for protocol, port in PACKETS:
                asked += 1
                labels = LABELS[peer] if peer else None
                decision = decide((one, two), SUBJECT, Direction.INGRESS, labels, protocol, port)
                cell = lookup(cells, protocol, port)
                about = (one, two, peer, protocol, port, cells)
                assert cell.verdict == VERDICTS[decision.outcome], about
                assert cell.redirect == decision.redirect, about
                if decision.outcome is Outcome.DEFAULT_DENIED:
                    assert cell.rule == 7
    assert asked > 100_000
