"""Numbers, prefixes of ports, classes and their cells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.abi.enums import PolicyMatch, PolicyVerdict
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import EVERYTHING, Selector, equals
from podwire.policy import number
from podwire.policy.flatten import WHOLE, Cell, Meaning, flatten, nodes, split
from podwire.policy.resolve import Collision, Policy, Side, bits, prepare

ALLOW, DENY = PolicyVerdict.ALLOW, PolicyVerdict.DENY
APPS = [Selector((equals("k8s", "app", name),)) for name in "abc"]


def rule(*clauses: Clause, name: str = "policy") -> Rule:
    return Rule(Origin("test", "", name), 0, EVERYTHING, clauses, True, False)


def clause(index: int, *peers: Selector, ports: tuple[Ports, ...] | None = None) -> Clause:
    return Clause(Direction.INGRESS, Effect.ALLOW, index, peers, ports, f"spec.ingress[{index}]")


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_ranges_split_into_prefixes_that_hold_them_and_nothing_else(first: int, last: int) -> None:
    first, last = sorted((first, last))
    next_port = first
    for port, length in split(first, last):
        assert port == next_port and port % (1 << (16 - length)) == 0
        next_port = port + (1 << (16 - length))
    assert next_port == last + 1


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [
        (0, 65535, 1),
        (80, 80, 1),
        (1, 65535, 16),
        (0, 65534, 16),
        (1, 65534, 30),
        (8080, 8090, 3),
        (65535, 65535, 1),
    ],
)
def test_the_fewest_prefixes(first: int, last: int, count: int) -> None:
    assert len(split(first, last)) == count


def test_any_protocol_is_three() -> None:
    assert nodes(0, 80, 80) == [(6, 80, 16), (17, 80, 16), (132, 80, 16)]


@given(st.integers(0, 1 << 200))
def test_bits(mask: int) -> None:
    assert sum(1 << position for position in bits(mask)) == mask
    assert sorted(bits(mask)) == list(bits(mask))


def test_a_narrower_allow_below_a_denial_is_not_there() -> None:
    """CVE-2024-47825 is what happens otherwise."""
    cells = flatten(
        [Meaning(1, True, True, ((6, 0, 0),)), Meaning(2, False, True, ((6, 80, 16), (17, 80, 16)))], True, 9
    )
    assert cells == (
        Cell(0, 0, 0, PolicyVerdict.DEFAULT_DENY, PolicyMatch.NONE, 9),
        Cell(6, 0, 0, DENY, PolicyMatch.L3_PROTO, 1),
        Cell(17, 80, 16, ALLOW, PolicyMatch.L3_L4, 2),
    )


def test_a_wider_allow_does_not_cover_a_narrower_denial() -> None:
    cells = flatten([Meaning(1, False, False, None), Meaning(2, True, False, ((6, 80, 16),))], True, 9)
    assert [(cell.verdict, cell.match, cell.rule) for cell in cells] == [
        (ALLOW, PolicyMatch.ALL, 1),
        (DENY, PolicyMatch.L4, 2),
    ]


def test_the_rule_that_names_the_peer_is_named() -> None:
    node = ((6, 80, 16),)
    cells = flatten(
        [Meaning(1, False, False, node), Meaning(2, False, True, node), Meaning(3, False, True, node)],
        False,
        0,
    )
    assert [(cell.rule, cell.match) for cell in cells] == [(0, PolicyMatch.ALL), (2, PolicyMatch.L3_L4)]


def test_a_denial_of_everything_is_all_there_is() -> None:
    cells = flatten([Meaning(1, True, True, None), Meaning(2, True, True, ((6, 80, 16),))], False, 0)
    assert cells == (Cell(*WHOLE, DENY, PolicyMatch.L3, 1),)


def test_numbers_are_never_zero_and_stay_the_same() -> None:
    assert number.of(b"a") == number.of(b"a") != number.of(b"b")
    assert number.of(b"a") != number.of(b"a", 1)
    assert all(0 < number.of(bytes([one])) < 1 << 32 for one in range(256))


def test_a_number_that_is_taken_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number, "of", lambda content, salt=0: 5 + salt)
    registry = number.Registry()
    assert (registry.take(b"a"), registry.take(b"b"), registry.take(b"a")) == (5, 6, 5)
    registry.release(b"a")
    assert registry.take(b"c") == 5


def test_the_class_of_an_identity_is_what_names_it() -> None:
    policy = Policy(
        [prepare(rule(clause(0, APPS[0]), clause(1, APPS[0], APPS[1])), lambda one: one.index + 1)], {}, {}
    )
    found = {APPS[0]: frozenset({300, 301}), APPS[1]: frozenset({301, 302}), APPS[2]: frozenset({303})}
    tables = policy.tabulate(found.__getitem__)
    classes = tables.peers[Direction.INGRESS]
    assert classes[300] == classes[301] != classes[302]  # both clauses name them, however often
    assert set(classes) == {300, 301, 302}


def test_classes_that_collide_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(rule(clause(0, APPS[0]), clause(1, APPS[1])), lambda one: one.index + 1)
    side = Side([prepared], Direction.INGRESS, {}, 0)
    monkeypatch.setattr(number, "of", lambda content, salt=0: 5)
    side.class_of(1, ())
    with pytest.raises(Collision):
        side.class_of(2, ())


def test_equal_rules_are_one_policy_and_others_are_not() -> None:
    def policy(one: Rule, **named: frozenset[tuple[int, int]]) -> int:
        return Policy([prepare(one, lambda _: 1)], named, {Direction.INGRESS: 2}).number

    plain = rule(clause(0, APPS[0], ports=(Ports(6, 80, 80),)))
    assert policy(plain) == policy(plain)
    assert policy(plain) == policy(plain, http=frozenset({(6, 80)}))  # a name no rule uses
    assert policy(plain) != policy(rule(clause(0, APPS[0], ports=(Ports(6, 81, 81),))))
    by_name = rule(clause(0, APPS[0], ports=(Ports(6, 0, 0, "http"),)))
    assert policy(by_name, http=frozenset({(6, 80)})) != policy(by_name, http=frozenset({(6, 81)}))
