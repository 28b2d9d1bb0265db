"""Kubernetes label selectors to requirements, and the namespaces a policy's selectors mean.

The first two functions read; the others add what the scope of the object adds: a namespaced policy
selects subjects in its own namespace only, and peers there unless the selector names namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model.labels import CLUSTER, NAMESPACE, NAMESPACE_LABELS
from podwire.model.selector import Operator, Requirement, Selector, equals, exists
from podwire.policy.parse.read import below, items, known, show, string, take

SOURCES = ("k8s", "any", "reserved")
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
KEY_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)

Key = Callable[[str, str], tuple[str, str]]  # text and path of a key → (source, key)


def cilium_key(text: str, path: str) -> tuple[str, str]:
    """``k8s:app`` → (k8s, app); a key without source is meant of any source."""
    source, colon, key = text.partition(":")
    if not colon:
        source, key = "any", text
    if source == "cidr":
        raise InvalidObject(path, "prefixes cannot be selected by label", hint="use fromCIDR or toCIDR")
    if source not in SOURCES:
        raise InvalidObject(
            path, f"unknown source of labels {show(source)}", hint=f"known: {', '.join(SOURCES)}"
        )
    return source, _checked_key(key, path)


def pod_key(text: str, path: str) -> tuple[str, str]:
    return "k8s", _checked_key(text, path)


def namespace_key(text: str, path: str) -> tuple[str, str]:
    """A label of the pod's namespace."""
    return "k8s", NAMESPACE_LABELS + _checked_key(text, path)


def _checked_key(key: str, path: str) -> str:
    plain = key.removeprefix(NAMESPACE_LABELS)
    prefix, slash, name = plain.rpartition("/")
    if not name or not VALUE.fullmatch(name) or (slash and not KEY_PREFIX.fullmatch(prefix)):
        raise InvalidObject(path, f"{show(key)} is no valid label key")
    return key


def requirements(value: Any, path: str, key: Key) -> list[Requirement]:
    """Conditions of a label selector object, in its order."""
    read = known(value, path, frozenset({"matchLabels", "matchExpressions"}))
    found = []
    if read.get("matchLabels") is not None:
        where = below(path, "matchLabels")
        for text, content in take(read["matchLabels"], where).items():
            at = below(where, text)
            source, name = key(string(text, at), at)
            found.append(equals(source, name, _checked_value(content, at)))
    for element, at in items(read.get("matchExpressions"), below(path, "matchExpressions")):
        found.append(_expression(element, at, key))
    return found


def _expression(value: Any, path: str, key: Key) -> Requirement:
    read = known(value, path, frozenset({"key", "operator", "values"}))
    source, name = key(string(read.get("key"), f"{path}.key"), f"{path}.key")
    word = string(read.get("operator"), f"{path}.operator")
    try:
        operator = Operator(word)
    except ValueError as error:
        hint = f"known: {', '.join(Operator)}"
        raise InvalidObject(f"{path}.operator", f"unknown operator {show(word)}", hint=hint) from error
    given = {_checked_value(one, at) for one, at in items(read.get("values"), f"{path}.values")}
    if operator in (Operator.IN, Operator.NOT_IN) and not given:
        raise InvalidObject(f"{path}.values", f"{operator} needs at least one value")
    if operator in (Operator.EXISTS, Operator.NOT_EXISTS) and given:
        raise InvalidObject(f"{path}.values", f"{operator} takes no values")
    return Requirement(source, name, operator, tuple(sorted(given)))


def _checked_value(value: Any, path: str) -> str:
    text = string(value, path)
    if not VALUE.fullmatch(text):
        raise InvalidObject(path, f"{show(text)} is no valid label value")
    return text


def selector(*conditions: Requirement) -> Selector:
    return Selector(tuple(sorted(set(conditions))))


def names_namespace(condition: Requirement) -> bool:
    """Whether a condition says in which namespaces a peer is."""
    return condition.source in ("k8s", "any") and (
        condition.key == NAMESPACE or condition.key.startswith(NAMESPACE_LABELS)
    )


def subject(value: Any, path: str, namespace: str) -> Selector:
    """Which pods a rule is for. Nothing a namespaced policy says makes it reach other namespaces."""
    found = requirements(value, path, cilium_key)
    if namespace:
        for condition in found:
            elsewhere = condition.operator is Operator.IN and namespace not in condition.values
            if condition.key == NAMESPACE and elsewhere:
                problem = f"a policy of namespace {namespace} selects pods of that namespace only"
                raise InvalidObject(path, problem, hint="write a CiliumClusterwideNetworkPolicy")
        found.append(equals("k8s", NAMESPACE, namespace))
    return selector(*found)


def peer(value: Any, path: str, namespace: str) -> Selector:
    """Whom a rule means by one of from/toEndpoints.

    A selector that names no namespace means the policy's own; in a cluster-wide policy it means pods
    of all namespaces. One that asks for a reserved label is taken as it is: these have no namespace.

    Nodes and the world have none of a pod's labels, so they meet every condition that is only negative.
    A peer that nobody has asked for by its reserved label is a pod: what only leaves namespaces out is
    told so.
    """
    found = requirements(value, path, cilium_key)
    asked = [one for one in found if one.operator in (Operator.IN, Operator.EXISTS)]
    if any(one.source == "reserved" for one in asked):
        return selector(*found)
    if namespace and not any(names_namespace(one) for one in found):
        found.append(equals("k8s", NAMESPACE, namespace))
    elif not any(names_namespace(one) for one in asked):
        found.append(exists("k8s", NAMESPACE))
    return selector(*found)


def of_cluster(peer: Selector, cluster: str) -> Selector:
    """A peer of which it is said that it is a pod, and not of which cluster, as one of this cluster.

    Pods have a namespace, and who selects pods asks for one (`peer` sees to it). What has none is of no
    cluster.
    """
    said = peer.requirements
    pods = any(names_namespace(one) and one.operator in (Operator.IN, Operator.EXISTS) for one in said)
    if not pods or any(one.key == CLUSTER and one.source in ("k8s", "any") for one in said):
        return peer
    return selector(*said, equals("k8s", CLUSTER, cluster))
