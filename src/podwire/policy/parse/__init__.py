"""Policy objects of the Kubernetes API to validated rules.

In the walk: sources calls `parse` on what it watches and puts the result into table `policies`.

Pure. What is not supported is refused by name, with its path in the object, and never ignored: a
policy is in force as it is written or not at all. The only exception is InvalidObject, whatever
JSON value comes in.
"""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.base.errors import InvalidObject
from podwire.model.rule import Rule
from podwire.model.terms import Asked
from podwire.policy.parse import cilium, kubernetes, selectors
from podwire.policy.parse.read import show, take

PARSERS = {
    "CiliumNetworkPolicy": cilium.parse,
    "CiliumClusterwideNetworkPolicy": cilium.parse,
    "NetworkPolicy": kubernetes.parse,
}


def parse(policy: Any, *, cluster: str = "default", own: bool = False) -> tuple[Rule, ...]:
    """Rules of one object, one per spec; `cluster` is what the entity ``cluster`` means.

    `own`: peers that are selected by labels are this cluster's, unless the selector names a cluster.
    Raises InvalidObject at the first thing that is wrong or not supported.
    """
    kind = take(policy, "").get("kind")
    if not isinstance(kind, str) or kind not in PARSERS:
        raise InvalidObject("kind", f"{show(kind)} is no kind of policy", hint=f"known: {', '.join(PARSERS)}")
    rules = askable(PARSERS[kind](policy, cluster))
    return tuple(_of_cluster(rule, cluster) for rule in rules) if own else rules


def askable(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules; InvalidObject if one of their selectors cannot be asked. It would select nobody, and a
    denial of nobody denies nothing."""
    for rule in rules:
        for clause in rule.clauses:
            for selector in clause.peers or ():
                try:
                    Asked(selector)
                except ValueError as error:
                    raise InvalidObject(
                        clause.path, f"whom ({selector}) selects cannot be told: {error}"
                    ) from error
    return rules


def _of_cluster(rule: Rule, cluster: str) -> Rule:
    clauses = []
    for clause in rule.clauses:
        peers = clause.peers and tuple(selectors.of_cluster(one, cluster) for one in clause.peers)
        clauses.append(msgspec.structs.replace(clause, peers=peers))
    return msgspec.structs.replace(rule, clauses=tuple(clauses))
