"""Selections follow identities and rules, and are what testing each pair would give."""

from __future__ import annotations

import random

import pytest

from podwire.model import labels
from podwire.model.rule import Clause, Direction, Effect, Origin, Rule
from podwire.model.selector import (
    EVERYTHING,
    NOTHING,
    Operator,
    Requirement,
    Selector,
    equals,
    exists,
    inside,
)
from podwire.model.terms import EVERY, needs, terms
from podwire.state.tables import IdentityRow, PolicyRow
from podwire.testing.walk import Walk

SEEDS = range(20)
SOURCES, KEYS, VALUES = ("k8s", "any", "reserved"), ("app", "tier", "world"), ("web", "db", "")
PREFIXES = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/8", "fd00::1/128", "0.0.0.0/0")


def some_selector(chance: random.Random) -> Selector:
    if chance.random() < 0.05:
        return chance.choice((EVERYTHING, NOTHING))
    if chance.random() < 0.3:
        return Selector(inside(chance.choice(PREFIXES), tuple(chance.sample(PREFIXES, chance.randint(0, 1)))))
    found = set()
    for _ in range(chance.randint(1, 2)):
        operator = chance.choice(list(Operator))
        values = tuple(sorted(set(chance.choices(VALUES, k=2)))) if operator in ("In", "NotIn") else ()
        found.add(Requirement(chance.choice(SOURCES), chance.choice(KEYS), operator, values))
    return Selector(tuple(sorted(found)))


def some_labels(chance: random.Random) -> labels.Labels:
    if chance.random() < 0.4:
        return labels.canonical({labels.cidr(chance.choice(PREFIXES)), "reserved:world"})
    return labels.canonical(
        labels.label("k8s", chance.choice(KEYS), chance.choice(VALUES)) for _ in range(chance.randint(1, 2))
    )


def policy(name: str, *selectors: Selector) -> PolicyRow:
    clause = Clause(Direction.INGRESS, Effect.ALLOW, 0, selectors, None, "spec.ingress[0]")
    rule = Rule(Origin("test", "", name), 0, EVERYTHING, (clause,), True, False)
    return PolicyRow("test", "", name, "", 1, (rule,))


def test_by_difference_it_is_the_same_as_by_brute_force() -> None:
    for seed in SEEDS:
        chance = random.Random(seed)
        walk = Walk()
        tables = walk.tables
        for _ in range(60):
            number = 300 + chance.randrange(12)
            choice = chance.random()
            if choice < 0.4:
                tables.identities.put(IdentityRow(number, some_labels(chance), "cluster"))
            elif choice < 0.6:
                tables.identities.delete(number)
            elif choice < 0.9:
                found = (some_selector(chance) for _ in range(chance.randint(0, 3)))
                tables.policies.put(policy(f"p{chance.randrange(4)}", *dict.fromkeys(found)))
            else:
                tables.policies.delete(("test", "", f"p{chance.randrange(4)}"))
            if chance.random() < 0.5:
                walk.settle()
        walk.settle()
        wanted = {
            selector
            for row in tables.policies
            for rule in row.rules
            for clause in rule.clauses
            for selector in clause.peers or ()
        }
        wanted.add(Selector((exists("reserved", "host"),)))  # of the rule that lets the node reach its pods
        assert {row.selector for row in tables.selections} == wanted, seed
        for row in tables.selections:
            expected = {one.number for one in tables.identities if row.selector.matches(one.labels)}
            assert row.identities == expected, (seed, str(row.selector))


def test_a_selector_that_selects_nobody_is_there_and_empty() -> None:
    walk = Walk()
    walk.tables.policies.put(policy("a", NOTHING, Selector((equals("k8s", "app", "nobody"),))))
    walk.settle()
    assert all(not row.identities for row in walk.tables.selections if "host" not in str(row.selector))


def test_users_are_counted() -> None:
    walk = Walk()
    web = Selector((equals("k8s", "app", "web"),))
    walk.tables.policies.put(policy("a", web))
    walk.tables.policies.put(policy("b", web))
    walk.settle()
    row = walk.tables.selections.get(web)
    assert row is not None and row.users == 2
    walk.tables.policies.delete(("test", "", "a"))
    walk.settle()
    row = walk.tables.selections.get(web)
    assert row is not None and row.users == 1


def test_what_a_selector_needs_is_the_rarest() -> None:
    namespace = equals("k8s", labels.NAMESPACE, "prod")
    app = equals("k8s", "app", "web")
    assert needs(Selector((app, namespace))) == {("k8s", "app", "web")}
    assert needs(Selector((namespace, exists("k8s", "app")))) == {("k8s", labels.NAMESPACE, "prod")}
    assert needs(Selector((Requirement("k8s", "app", Operator.NOT_IN, ("a",)),))) == {EVERY}
    assert needs(NOTHING) == frozenset()
    assert needs(Selector(inside("10.0.0.0/8"))) == {(4, 8, 10)}
    assert (4, 8, 10) in terms(("cidr:10.1.0.0/16",))


def test_what_cannot_be_asked_or_listed_costs_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    walk = Walk()
    tables = walk.tables
    web, wrong = Selector((equals("k8s", "app", "web"),)), Selector((exists("cidr", "no-prefix"),))
    tables.identities.put(IdentityRow(300, ("cidr:nonsense",), "local"))
    tables.identities.put(IdentityRow(301, ("k8s:app=web",), "cluster"))
    tables.policies.put(policy("a", wrong, web))
    walk.settle()
    tables.identities.put(IdentityRow(302, ("k8s:app=web",), "cluster"))
    tables.identities.delete(300)
    walk.settle()
    assert tables.selections.members(web) == {301, 302}
    assert wrong in tables.selections and not tables.selections.members(wrong)
    assert "selecting identity 300 failed" in caplog.text and "selecting by has cidr:no-prefix" in caplog.text
    tables.policies.delete(("test", "", "a"))
    walk.settle()
    assert wrong not in tables.selections
