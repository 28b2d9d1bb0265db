"""Whatever JSON comes in: rules, or one InvalidObject."""

from __future__ import annotations

import copy
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.worlds import World

from podwire.base.errors import InvalidObject
from podwire.policy.parse import PARSERS, parse
from podwire.policy.resolve import prepare

TEXTS = (
    "80", "http", "TCP", "ANY", "10.0.0.0/8", "::/0", "world", "all", "In", "app",
    "0" * 5000, "9" * 5000, "\ud800", "\x1b[31m",
)  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(TEXTS),
)
NAMES = (
    "spec", "specs", "endpointSelector", "podSelector", "namespaceSelector", "ingress", "egress",
    "ingressDeny", "egressDeny", "from", "to", "fromEndpoints", "toEndpoints", "fromCIDR", "toCIDRSet",
    "cidr", "except", "fromEntities", "toPorts", "ports", "port", "endPort", "protocol", "icmps", "fields",
    "type", "family", "matchLabels", "matchExpressions", "key", "operator", "values", "labels", "log",
    "value", "enableDefaultDeny", "ipBlock", "policyTypes", "description",
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from((*NAMES, "\x1b[31m", "\ud800", "x" * 5000)), st.text(max_size=5)),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


def check(policy: Any) -> None:
    try:
        for rule in parse(policy):
            prepare(rule, lambda clause: 1)  # what parses can be numbered
    except InvalidObject as error:
        assert str(error).isprintable()  # whoever logs it is not told what to do by it
        assert len(str(error)) < 3000


@given(values)
@settings(max_examples=1000, deadline=None)
def test_any_json_value(value: Any) -> None:
    check(value)


@given(st.sampled_from(sorted(PARSERS)), values)
@settings(max_examples=1000, deadline=None)
def test_any_spec(kind: str, spec: Any) -> None:
    check({"kind": kind, "metadata": {"name": "a", "namespace": "b"}, "spec": spec})


@given(st.integers(0, 1 << 40), values)
@settings(max_examples=1000, deadline=None)
def test_a_good_policy_with_one_thing_replaced(seed: int, value: Any) -> None:
    chance = random.Random(seed)
    policy = copy.deepcopy(chance.choice(World.of(seed).objects))
    node: Any = policy
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = chance.choice(keys)
        if not isinstance(node[key], dict | list) or chance.random() < 0.2:
            node[key] = value
            break
        node = node[key]
    check(policy)
