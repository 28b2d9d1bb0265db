"""Through a proxy: from the clause to the entry that the kernel is given."""

from __future__ import annotations

import msgspec
import pytest

from podwire.abi import structs
from podwire.abi.enums import PolicyMatch, PolicyVerdict
from podwire.datapath import rows
from podwire.model.decide import Outcome, decide
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import Selector, equals
from podwire.policy import number
from podwire.policy.flatten import WHOLE, Cell, Meaning, Node, flatten
from podwire.policy.resolve import prepare, rule_content
from podwire.state.tables import ContainerPort, EntryRow, PolicyRow
from podwire.testing.walk import Walk

ALLOW, DENY, INGRESS = PolicyVerdict.ALLOW, PolicyVerdict.DENY, Direction.INGRESS
WEB = Selector((equals("k8s", "app", "web"),))
CLIENT = Selector((equals("k8s", "app", "client"),))
TCP: Node = (6, 0, 0)
HTTP: Node = (6, 80, 16)


def allow(rule: int, *nodes: Node, redirect: int = 0, named: bool = True) -> Meaning:
    return Meaning(rule, False, named, nodes or None, redirect=redirect)


def said(*meanings: Meaning) -> dict[Node, tuple[int, int, int]]:
    """Node → (verdict, redirect, rule), whatever order the clauses come in."""
    found = [flatten(order, True, 9) for order in (meanings, meanings[::-1])]
    assert found[0] == found[1]
    cells = found[0]
    return {(cell.protocol, cell.port, cell.bits): (cell.verdict, cell.redirect, cell.rule) for cell in cells}


# --- precedence ------------------------------------------------------------------------------------


def test_a_redirect_wins_over_an_allowance_of_the_same_ports_also_one_that_names_the_peer() -> None:
    cells = said(allow(1, HTTP), allow(2, HTTP, redirect=7, named=False))
    assert cells[HTTP] == (ALLOW, 7, 2)
    assert flatten([allow(2, HTTP, redirect=7, named=False)], True, 9)[1].match == PolicyMatch.L4


def test_a_narrower_allowance_is_no_way_around_a_proxy() -> None:
    cells = said(allow(1, HTTP), allow(2, TCP, redirect=7))
    assert cells == {WHOLE: (PolicyVerdict.DEFAULT_DENY, 0, 9), TCP: (ALLOW, 7, 2)}
    assert said(allow(1, HTTP), allow(2, redirect=7)) == {WHOLE: (ALLOW, 7, 2)}
    # Of another protocol, or beside it, it is none.
    cells = said(allow(1, (17, 80, 16)), allow(2, TCP, redirect=7))
    assert cells[17, 80, 16] == (ALLOW, 0, 1)
    cells = said(allow(1, HTTP), allow(2, (6, 88, 13), redirect=7))
    assert cells[HTTP] == (ALLOW, 0, 1)


def test_a_wider_allowance_leaves_the_rest_without_one() -> None:
    assert said(allow(1), allow(2, HTTP, redirect=7)) == {WHOLE: (ALLOW, 0, 1), HTTP: (ALLOW, 7, 2)}


@pytest.mark.parametrize("denied", [HTTP, TCP])
def test_a_denial_wins_over_a_redirect(denied: Node) -> None:
    cells = said(Meaning(1, True, False, (denied,)), allow(2, HTTP, redirect=7))
    assert cells[denied] == (DENY, 0, 1) and len(cells) == 2
    narrower = said(Meaning(1, True, False, (HTTP,)), allow(2, TCP, redirect=7))
    assert narrower[HTTP] == (DENY, 0, 1) and narrower[TCP] == (ALLOW, 7, 2)


def test_of_two_proxies_the_lower_number_wins_whoever_says_more() -> None:
    assert said(allow(1, HTTP, redirect=8), allow(2, HTTP, redirect=7, named=False))[HTTP] == (ALLOW, 7, 2)
    assert HTTP not in said(allow(1, HTTP, redirect=8), allow(2, TCP, redirect=7))
    cells = said(allow(1, HTTP, redirect=7), allow(2, TCP, redirect=8))
    assert (cells[HTTP], cells[TCP]) == ((ALLOW, 7, 1), (ALLOW, 8, 2))
    assert said(allow(1, HTTP, redirect=7), allow(2, TCP, redirect=7))[HTTP] == (ALLOW, 7, 1)
    three = said(allow(1, HTTP, redirect=8), allow(2, TCP, redirect=9), allow(3, redirect=7))
    assert three == {WHOLE: (ALLOW, 7, 3)}


def test_without_proxies_the_cells_are_as_they_were() -> None:
    cells = flatten([allow(1), allow(2, HTTP)], True, 9)
    assert cells == (Cell(*WHOLE, ALLOW, PolicyMatch.L3, 1), Cell(*HTTP, ALLOW, PolicyMatch.L3_L4, 2))


# --- the definition ----------------------------------------------------------------------------------


def clause(index: int, effect: Effect, ports: Ports | None, redirect: int = 0) -> Clause:
    chosen = None if ports is None else (ports,)
    return Clause(INGRESS, effect, index, (CLIENT,), chosen, f"spec.ingress[{index}]", redirect)


def policy(*clauses: Clause) -> Rule:
    return Rule(Origin("CiliumNetworkPolicy", "default", "a"), 0, WEB, clauses, True, False)


def test_the_definition_says_which_clauses_made_it_a_proxys() -> None:
    plain = clause(0, Effect.ALLOW, None)
    seven, eight = (clause(one, Effect.ALLOW, Ports(6, 80, 80), one) for one in (7, 8))
    deny = clause(9, Effect.DENY, Ports(6, 80, 80), 5)
    client = ("k8s:app=client",)

    def asked(*clauses: Clause, port: int = 80) -> tuple[Outcome, int, set[int]]:
        decision = decide([policy(*clauses)], ("k8s:app=web",), INGRESS, client, 6, port)
        return decision.outcome, decision.redirect, {one.index for _, one in decision.because if one}

    assert asked(plain, eight, seven) == (Outcome.ALLOWED, 7, {7})
    assert asked(plain, eight) == (Outcome.ALLOWED, 8, {8})
    assert asked(plain, eight, port=81) == (Outcome.ALLOWED, 0, {0})
    assert asked(plain, seven, deny) == (Outcome.DENIED, 0, {9})


# --- numbers and rows ----------------------------------------------------------------------------------


def test_a_proxy_makes_another_policy_and_none_keeps_its_number() -> None:
    def content(one: Clause) -> bytes:
        rule = policy(one)
        said = rule_content(rule.origin, one.direction, one.effect, rule.index, one.index)
        return prepare(rule, lambda _: number.of(said)).content

    plain = clause(0, Effect.ALLOW, None)
    redirected = msgspec.structs.replace(plain, redirect=7)
    assert (
        len({content(plain), content(redirected), content(msgspec.structs.replace(plain, redirect=8))}) == 3
    )
    # As agents before this wrote it: what is in kernels has that number.
    assert content(plain).hex() == "5b0b23674f503d7285b2f946ba819dcb"
    deny = clause(0, Effect.DENY, None)
    assert content(deny) == content(msgspec.structs.replace(deny, redirect=7)), "who denies sends nowhere"


def walk_with(*clauses: Clause) -> Walk:
    walk = Walk()
    walk.endpoint(1, "web", {"app": "web"}, ports=[ContainerPort("http", 8080, 6)])
    walk.endpoint(2, "client", {"app": "client"})
    put(walk, *clauses)
    return walk


def put(walk: Walk, *clauses: Clause) -> None:
    walk.tables.policies.put(PolicyRow("CiliumNetworkPolicy", "default", "a", "", 1, (policy(*clauses),)))
    walk.settle()


def entries(walk: Walk) -> dict[tuple[int, int], EntryRow]:
    """(port, bits) → entry of the class that the clauses select."""
    return {
        (row.port, row.port_bits): row
        for row in walk.tables.policy_entries
        if row.peer_class and row.protocol
    }


def test_the_kernels_entry_has_the_listener_also_for_a_port_by_its_name() -> None:
    walk = walk_with(
        clause(0, Effect.ALLOW, Ports(6, 80, 80), 10080), clause(1, Effect.ALLOW, Ports(6, 443, 443))
    )
    found = entries(walk)
    assert (found[80, 16].proxy_port, found[80, 16].verdict) == (10080, ALLOW)
    assert found[443, 16].proxy_port == 0
    ((_, value),) = rows.policy_entry(found[80, 16]).items()
    assert structs.PolicyEntry.unpack(value).proxy_port == 10080
    put(walk, clause(0, Effect.ALLOW, Ports(6, name="http"), 65535))
    assert entries(walk)[8080, 16].proxy_port == 65535


def test_another_listener_is_another_policy_that_is_switched_to() -> None:
    ports = Ports(6, 80, 80)
    walk = walk_with(clause(0, Effect.ALLOW, ports))
    numbers = []
    for redirect in (0, 7, 8, 0):
        put(walk, clause(0, Effect.ALLOW, ports, redirect))
        obeyed = walk.tables.endpoint_policies.get(1)
        assert obeyed is not None
        numbers.append(obeyed.policy)
        assert {row.policy for row in walk.tables.policy_entries} == {obeyed.policy}
        assert entries(walk)[80, 16].proxy_port == redirect
    assert numbers[0] == numbers[3] and len(set(numbers)) == 3
