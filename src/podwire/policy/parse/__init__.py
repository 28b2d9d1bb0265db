"""Policy objects of the Kubernetes API to validated rules.

In the walk: sources calls `parse` on what it watches and puts the result into table `policies`.

Pure. What is not supported is refused by name, with its path in the object, and never ignored: a
policy is in force as it is written or not at all. The only exception is InvalidObject, whatever
JSON value comes in.
"""

from __future__ import annotations

from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model.rule import Rule
from podwire.policy.parse import cilium, kubernetes
from podwire.policy.parse.read import show, take

PARSERS = {
    "CiliumNetworkPolicy": cilium.parse,
    "CiliumClusterwideNetworkPolicy": cilium.parse,
    "NetworkPolicy": kubernetes.parse,
}


def parse(policy: Any, *, cluster: str = "default") -> tuple[Rule, ...]:
    """Rules of one object, one per spec; `cluster` is what the entity ``cluster`` means.

    Raises InvalidObject at the first thing that is wrong or not supported.
    """
    kind = take(policy, "").get("kind")
    if not isinstance(kind, str) or kind not in PARSERS:
        raise InvalidObject("kind", f"{show(kind)} is no kind of policy", hint=f"known: {', '.join(PARSERS)}")
    return PARSERS[kind](policy, cluster)
