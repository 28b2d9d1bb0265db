"""The words: labels, prefixes as labels, selectors, reserved identities."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.model import identity, labels
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


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("k8s:app=web", ("k8s", "app", "web")),
        ("app=web", ("any", "app", "web")),
        ("app", ("any", "app", "")),
        ("reserved:host", ("reserved", "host", "")),
        ("k8s:app=a:b", ("k8s", "app", "a:b")),
        ("app=a:b", ("any", "app", "a:b")),
        ("k8s:a=b=c", ("k8s", "a", "b=c")),
    ],
)
def test_labels_have_source_key_and_value(text: str, parts: tuple[str, str, str]) -> None:
    assert labels.split(text) == parts


def test_label_texts() -> None:
    assert labels.label("k8s", "app", "web") == "k8s:app=web"
    assert labels.label("k8s", "app") == "k8s:app="
    assert labels.label("reserved", "host") == "reserved:host"
    assert labels.canonical(["b", "a", "b"]) == ("a", "b")


def test_labels_of_a_pod() -> None:
    found = labels.of_pod(
        {"app": "web", "pod-template-hash": "abc"},
        namespace="prod",
        namespace_labels={"team": "red"},
        service_account="",
        cluster="default",
    )
    assert found == (
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.team=red",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
        "k8s:io.kubernetes.pod.namespace=prod",
    )
    assert labels.namespace_of(found) == "prod" and labels.namespace_of(("reserved:host",)) == ""
    assert labels.pod_labels(("k8s:app=web", "reserved:host")) == {"app": "web"}


def test_a_pod_does_not_choose_where_it_belongs() -> None:
    """Labels like those podwire gives itself are not taken from a pod (GO-2022-0959 in a peer)."""
    honest = {
        "namespace": "red", "namespace_labels": {"team": "red"}, "service_account": "s", "cluster": "here",
    }  # fmt: skip
    crafted = {
        "io.kubernetes.pod.namespace": "zzz",
        "io.cilium.k8s.policy.serviceaccount": "zzz",
        "io.cilium.k8s.policy.cluster": "zzz",
        "io.cilium.k8s.namespace.labels.team": "zzz",
        "io.cilium.k8s.namespace.labels.admin": "yes",
        "app": "web",
    }
    assert labels.of_pod(crafted, **honest) == labels.of_pod({"app": "web"}, **honest)  # type: ignore[arg-type]


def test_a_pod_cannot_say_that_it_is_somebody_else() -> None:
    """CVE-2023-39347, GO-2022-0959: labels of a pod that only the cluster may give."""
    claims = {
        labels.NAMESPACE: "kube-system",
        labels.SERVICE_ACCOUNT: "admin",
        labels.CLUSTER: "other",
        f"{labels.NAMESPACE_LABELS}team": "red",
        "io.cilium.k8s.policy.anything": "x",
    }
    given = {
        "namespace": "prod",
        "namespace_labels": {"team": "blue"},
        "service_account": "web",
        "cluster": "c",
    }
    assert labels.of_pod(claims, **given) == labels.of_pod({}, **given)  # type: ignore[arg-type]


networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ipaddress.ip_network(f"{pair[0]}/{pair[1]}", strict=False))


@given(networks)
def test_a_prefix_survives_being_a_label(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    text = labels.cidr(str(network))
    assert ":" not in text.removeprefix("cidr:")
    assert not text.removeprefix("cidr:").startswith("-") and "-/" not in text
    assert labels.prefix_of((text, "reserved:world")) == str(network)


@given(networks, networks)
def test_within_is_what_ipaddress_says(one: ipaddress.IPv4Network, two: ipaddress.IPv4Network) -> None:
    keys = [labels.split(labels.cidr(str(network)))[1] for network in (one, two)]
    expected = one.version == two.version and one.subnet_of(two)
    assert labels.within(*keys) == expected
    assert (labels.network(keys[1]) in set(labels.covering(keys[0]))) == expected


def test_no_prefix_is_no_prefix() -> None:
    assert labels.prefix_of(("k8s:app=web",)) == ""


WEB: labels.Labels = ("k8s:app=web", "reserved:host")


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (equals("k8s", "app", "web"), True),
        (equals("any", "app", "web"), True),
        (equals("k8s", "app", "db"), False),
        (equals("reserved", "app", "web"), False),
        (exists("k8s", "app"), True),
        (exists("any", "host"), True),
        (exists("k8s", "host"), False),
        (Requirement("k8s", "app", Operator.NOT_IN, ("db",)), True),
        (Requirement("k8s", "app", Operator.NOT_IN, ("web",)), False),
        (Requirement("k8s", "tier", Operator.NOT_IN, ("web",)), True),
        (Requirement("any", "app", Operator.NOT_EXISTS), False),
        (Requirement("k8s", "tier", Operator.NOT_EXISTS), True),
    ],
)
def test_requirements(requirement: Requirement, expected: bool) -> None:
    assert Selector((requirement,)).matches(WEB) is expected


def test_a_prefix_is_met_by_what_is_inside_it_and_not_excepted() -> None:
    selector = Selector(inside("10.0.0.0/8", ("10.1.0.0/16",)))
    met = {
        prefix: selector.matches((labels.cidr(prefix),))
        for prefix in ("10.0.0.0/8", "10.2.0.0/16", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "11.0.0.0/8")
    }
    assert [prefix for prefix, yes in met.items() if yes] == ["10.0.0.0/8", "10.2.0.0/16"]


def test_everything_and_nothing() -> None:
    assert EVERYTHING.matches(()) and not NOTHING.matches(WEB)
    assert (str(EVERYTHING), str(NOTHING)) == ("<everything>", "<nothing>")


def test_reserved_identities() -> None:
    named = {one.number: one.labels for one in identity.RESERVED}
    assert named[1] == ("reserved:host",) and 0 not in named
    assert named[7] == ("reserved:kube-apiserver", "reserved:remote-node")
    assert identity.name(2) == "world" and identity.name(300) == "300"
    assert identity.is_local(1 << 24) and not identity.is_local(65535)
