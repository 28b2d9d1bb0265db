"""Selectors of endpoints mean pods: nodes and the world only where their reserved label is asked for."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.model import identity, labels
from podwire.model.selector import Selector
from podwire.policy.parse import parse

NAMESPACE = "io.kubernetes.pod.namespace"
NAMED = "io.cilium.k8s.namespace.labels.team"
KEYS = (
    "app", "k8s:app", "host", "any:world", "reserved:host", "reserved:world", "reserved:remote-node",
    "reserved:kube-apiserver", NAMESPACE, f"k8s:{NAMESPACE}", f"any:{NAMESPACE}", NAMED, f"k8s:{NAMED}",
)  # fmt: skip
VALUES = ("", "web", "prod", "red")
OUTSIDE = [labels.canonical([labels.cidr(prefix), "reserved:world"]) for prefix in ("0.0.0.0/0", "fd00::/8")]
RESERVED = [one.labels for one in identity.RESERVED] + OUTSIDE

several = st.lists(st.sampled_from(VALUES), min_size=1, max_size=2)


def expressions(keys: tuple[str, ...]) -> st.SearchStrategy[list[dict[str, Any]]]:
    key = st.sampled_from(keys)
    listed = st.fixed_dictionaries(
        {"key": key, "operator": st.sampled_from(("In", "NotIn")), "values": several}
    )
    plain = st.fixed_dictionaries({"key": key, "operator": st.sampled_from(("Exists", "DoesNotExist"))})
    return st.lists(st.one_of(listed, plain), max_size=3)


def selectors(keys: tuple[str, ...] = KEYS) -> st.SearchStrategy[dict[str, Any]]:
    wanted = st.dictionaries(st.sampled_from(keys), st.sampled_from(VALUES), max_size=2)
    return st.fixed_dictionaries({}, optional={"matchLabels": wanted, "matchExpressions": expressions(keys)})


def asks_for_reserved(selector: dict[str, Any]) -> bool:
    """Positively, by source; the other conditions may contradict it."""
    asked = list(selector.get("matchLabels") or ())
    asked += [
        one["key"] for one in selector.get("matchExpressions") or () if one["operator"] in ("In", "Exists")
    ]
    return any(key.startswith("reserved:") for key in asked)


def peers(kind: str, version: str, spec: dict[str, Any]) -> list[Selector]:
    meta = {"name": "policy"} | ({} if kind == "CiliumClusterwideNetworkPolicy" else {"namespace": "prod"})
    (rule,) = parse({"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec})
    return [one for clause in rule.clauses for one in clause.peers or ()]


def reserved_among(found: list[Selector]) -> list[tuple[str, labels.Labels]]:
    return [(str(one), known) for one in found for known in RESERVED if one.matches(known)]


@given(
    selectors(),
    st.sampled_from(("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")),
    st.sampled_from(("ingress", "ingressDeny", "egress", "egressDeny")),
)
@settings(max_examples=1500, deadline=None)
def test_endpoints_are_pods_unless_a_reserved_label_is_asked_for(
    selector: dict[str, Any], kind: str, side: str
) -> None:
    member = "fromEndpoints" if side.startswith("ingress") else "toEndpoints"
    found = peers(kind, "cilium.io/v2", {"endpointSelector": {}, side: [{member: [selector]}]})
    assert found
    if not asks_for_reserved(selector):
        assert not reserved_among(found)


PLAIN = ("app", "team", "kubernetes.io/metadata.name", NAMESPACE)


@given(
    st.fixed_dictionaries(
        {}, optional={"podSelector": selectors(PLAIN), "namespaceSelector": selectors(PLAIN)}
    )
)
@settings(max_examples=700, deadline=None)
def test_peers_of_a_network_policy_are_pods(peer: dict[str, Any]) -> None:
    if peer:
        spec = {"podSelector": {}, "ingress": [{"from": [peer]}]}
        found = peers("NetworkPolicy", "networking.k8s.io/v1", spec)
        assert found and not reserved_among(found)


def test_a_reserved_label_that_is_asked_for_is_found() -> None:
    """What the first property leaves out is possible at all."""
    spec = {"endpointSelector": {}, "ingress": [{"fromEndpoints": [{"matchLabels": {"reserved:host": ""}}]}]}
    assert reserved_among(peers("CiliumNetworkPolicy", "cilium.io/v2", spec))
