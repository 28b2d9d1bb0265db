"""Kubernetes NetworkPolicy to rules."""

from __future__ import annotations

from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model.labels import NAMESPACE
from podwire.model.rule import Clause, Direction, Effect, Prefix, Rule
from podwire.model.selector import Requirement, Selector, equals, exists
from podwire.policy.parse import peers, ports
from podwire.policy.parse.read import items, known, origin, show, string, take
from podwire.policy.parse.selectors import namespace_key, pod_key, requirements, selector

TYPES = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}
PEERS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}


def parse(policy: Any, cluster: str) -> tuple[Rule, ...]:
    """The rule of a NetworkPolicy. Raises InvalidObject."""
    read = take(policy, "")
    who = origin(read, namespaced=True)
    known(read, "", frozenset({"apiVersion", "kind", "metadata", "spec", "status"}))
    spec = known(read.get("spec"), "spec", frozenset({"podSelector", "ingress", "egress", "policyTypes"}))
    chosen: list[Requirement] = []
    if spec.get("podSelector") is not None:  # absent is empty: Kubernetes' default
        chosen = requirements(spec["podSelector"], "spec.podSelector", pod_key)
    restricted = _directions(spec)
    clauses: list[Clause] = []
    prefixes: list[Prefix] = []
    for direction in Direction:
        for index, (entry, path) in enumerate(items(spec.get(direction.word), f"spec.{direction.word}")):
            clause = _clause(entry, path, index, direction, who.namespace, prefixes)
            if direction in restricted:  # what policyTypes leaves out does not count
                clauses.append(clause)
    return (
        Rule(
            origin=who,
            index=0,
            subject=selector(equals("k8s", NAMESPACE, who.namespace), *chosen),
            clauses=tuple(clauses),
            default_deny_ingress=Direction.INGRESS in restricted,
            default_deny_egress=Direction.EGRESS in restricted,
            prefixes=tuple(dict.fromkeys(prefixes)),
        ),
    )


def _directions(spec: dict[str, Any]) -> set[Direction]:
    """Which directions the policy restricts: policyTypes, else ingress and what has egress rules."""
    given = list(items(spec.get("policyTypes"), "spec.policyTypes"))
    if not given:
        return {Direction.INGRESS, Direction.EGRESS} if spec.get("egress") else {Direction.INGRESS}
    found = set()
    for value, path in given:
        word = string(value, path)
        if word not in TYPES:
            raise InvalidObject(path, f"unknown policy type {show(word)}", hint=f"known: {', '.join(TYPES)}")
        found.add(TYPES[word])
    return found


def _clause(
    value: Any, path: str, index: int, direction: Direction, namespace: str, prefixes: list[Prefix]
) -> Clause:
    side = PEERS[direction]
    read = known(value, path, frozenset({side, "ports"}))
    found: list[Selector] = []
    entries = list(items(read.get(side), f"{path}.{side}"))
    for one, at in entries:
        found += _peer(one, at, namespace, prefixes)
    whom = tuple(dict.fromkeys(found)) if entries else None  # none named: whoever
    return Clause(
        direction, Effect.ALLOW, index, whom, ports.kubernetes(read.get("ports"), f"{path}.ports"), path
    )


def _peer(value: Any, path: str, namespace: str, prefixes: list[Prefix]) -> list[Selector]:
    read = known(value, path, frozenset({"podSelector", "namespaceSelector", "ipBlock"}))
    given = [name for name in ("ipBlock", "podSelector", "namespaceSelector") if read.get(name) is not None]
    if not given:
        raise InvalidObject(
            path, "names no peer", hint="one of podSelector, namespaceSelector and ipBlock is needed"
        )
    if given[0] == "ipBlock":
        if len(given) > 1:
            raise InvalidObject(
                f"{path}.ipBlock", f"cannot be combined with {given[1]}", hint="write two entries"
            )
        one = peers.prefix(read["ipBlock"], f"{path}.ipBlock")
        prefixes.append(one)
        return peers.prefix_selectors(one)
    conditions: list[Requirement] = []
    if "namespaceSelector" in given:
        conditions += requirements(read["namespaceSelector"], f"{path}.namespaceSelector", namespace_key)
        conditions.append(exists("k8s", NAMESPACE))  # only pods have one: an empty selector is not the world
    else:
        conditions.append(equals("k8s", NAMESPACE, namespace))
    if "podSelector" in given:
        conditions += requirements(read["podSelector"], f"{path}.podSelector", pod_key)
    return [selector(*conditions)]
