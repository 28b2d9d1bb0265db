"""Local identities: one per prefix that rules name, kept over restarts, never reused at once."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.identity import prefixes
from podwire.model.cluster import OWN
from podwire.model.identity import LOCAL_FIRST, UNMANAGED
from podwire.model.rule import Origin, Prefix, Rule
from podwire.model.selector import EVERYTHING
from podwire.state.tables import (
    IdentityRow,
    NodeRow,
    PodRow,
    PolicyRow,
    RemoteEndpointRow,
    SliceEndpoint,
    SliceRow,
)
from podwire.testing.walk import Walk

ODD = Rule(
    Origin("test", "", "wrong"),
    0,
    EVERYTHING,
    (),
    False,
    False,
    prefixes=(Prefix(None),),  # type: ignore[arg-type]
)


def egress(name: str, *cidrs: Any) -> dict[str, Any]:
    rules = [{"toCIDRSet": [one if isinstance(one, dict) else {"cidr": one} for one in cidrs]}]
    return {
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {}, "egress": rules},
    }


def local(walk: Walk) -> dict[int, tuple[str, ...]]:
    return {row.number: row.labels for row in walk.tables.identities if row.source == "local"}


def test_every_prefix_and_exception_has_an_identity() -> None:
    walk = Walk()
    walk.apply(egress("a", {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, "0.0.0.0/0", "fd00::/8"))
    walk.settle()
    assert sorted(local(walk).values()) == [
        ("cidr:10.0.0.0/8", "reserved:world"),
        ("cidr:10.1.0.0/16", "reserved:world"),
    ]
    assert walk.identity_at("10.2.0.1") != walk.identity_at("10.1.0.1")
    assert walk.identity_at("11.0.0.1") == 2


def test_in_dual_stack_the_family_is_in_the_label() -> None:
    walk = Walk(ipv6=True)
    walk.apply(egress("a", "10.0.0.0/8", "fd00::/8"))
    walk.settle()
    assert sorted(local(walk).values()) == [
        ("cidr:10.0.0.0/8", "reserved:world-ipv4"),
        ("cidr:fd00--0/8", "reserved:world-ipv6"),
    ]
    assert (walk.identity_at("8.8.8.8"), walk.identity_at("2001:db8::1")) == (9, 10)


def test_a_prefix_several_rules_name_is_one_and_goes_with_the_last() -> None:
    walk = Walk()
    walk.apply(egress("a", "10.0.0.0/8"), egress("b", "10.0.0.0/8", "10.0.0.0/8"))
    walk.settle()
    (number,) = local(walk)
    walk.tables.policies.delete(("CiliumNetworkPolicy", "default", "b"))
    walk.settle()
    assert set(local(walk)) == {number}
    walk.tables.policies.delete(("CiliumNetworkPolicy", "default", "a"))
    walk.settle()
    assert not local(walk) and number not in walk.tables.identities
    walk.apply(egress("a", "10.0.0.0/8"))
    walk.settle()
    assert number not in local(walk)  # a number rests before its next use


def test_numbers_of_an_earlier_life_are_kept() -> None:
    walk = Walk(restored={"10.0.0.0/8": LOCAL_FIRST + 7, "10.1.0.0/16": 300})
    walk.apply(egress("a", "10.0.0.0/8", "10.1.0.0/16"))
    walk.settle()
    assert set(local(walk)) == {LOCAL_FIRST + 7, LOCAL_FIRST + 8}
    assert walk.identity_at("10.2.0.1") == LOCAL_FIRST + 7


def node(name: str, address: str, *, local: bool = False) -> NodeRow:
    return NodeRow(name, (address,), (), {}, local)


def apiserver(*addresses: str) -> SliceRow:
    endpoints = tuple(SliceEndpoint(address, True, True, False, "") for address in addresses)
    return SliceRow("default", "kubernetes", "kubernetes", 4, endpoints, (("https", 6443, 6),))


def test_the_api_server_on_a_node_and_outside() -> None:
    walk = Walk()
    walk.tables.nodes.put(node("n1", "172.18.0.2", local=True))
    walk.tables.nodes.put(node("n2", "172.18.0.3"))
    walk.tables.slices.put(apiserver("172.18.0.2", "172.18.0.3", "172.18.0.9"))
    walk.settle()
    assert walk.identity_at("172.18.0.2") == 1
    assert walk.identity_at("172.18.0.3") == 7
    outside = walk.identity_at("172.18.0.9")
    assert local(walk)[outside] == ("cidr:172.18.0.9/32", "reserved:kube-apiserver", "reserved:world")
    walk.apply(egress("a", "172.18.0.9/32"))
    walk.settle()
    assert walk.identity_at("172.18.0.9") == outside  # a rule that names it changes nothing
    walk.tables.slices.put(apiserver("172.18.0.3"))
    walk.settle()
    assert local(walk)[walk.identity_at("172.18.0.9")] == ("cidr:172.18.0.9/32", "reserved:world")


def test_an_api_server_that_is_a_pod_of_another_node_is_one_whenever_that_is_told() -> None:
    """Those are told after all else at a start; of a pod, policies know the labels and not the address."""
    walk = Walk()
    walk.tables.slices.put(apiserver("10.0.2.9"))
    walk.settle()
    assert list(local(walk)) == [walk.identity_at("10.0.2.9")]
    labels = walk.labels({"app": "api"})
    walk.tables.identities.put(IdentityRow(300, labels, "cluster"))
    walk.tables.remote_endpoints.put(RemoteEndpointRow("default", "api", 300, ("10.0.2.9",), "172.18.0.3"))
    walk.settle()
    assert not local(walk) and walk.identity_at("10.0.2.9") == 300
    walk.tables.remote_endpoints.delete((OWN, "default", "api"))
    walk.settle()
    assert list(local(walk)) == [walk.identity_at("10.0.2.9")], "nobody's address is that of the API again"


def test_an_api_server_that_is_a_pod_of_this_node_is_one_whenever_that_is_told() -> None:
    walk = Walk()
    walk.tables.slices.put(apiserver("10.0.1.9"))
    walk.settle()
    assert list(local(walk)) == [walk.identity_at("10.0.1.9")]
    pod = PodRow("default", "api", "u1", "n1", ("10.0.1.9",), {}, "default", False, "Running", ())
    walk.tables.pods.put(pod)
    walk.settle()
    assert not local(walk) and walk.identity_at("10.0.1.9") == UNMANAGED
    walk.tables.pods.delete(("default", "api"))
    walk.settle()
    assert list(local(walk)) == [walk.identity_at("10.0.1.9")]


def test_more_prefixes_than_numbers_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "LOCAL_LAST", LOCAL_FIRST + 1)
    walk = Walk()
    walk.apply(egress("a", "10.1.0.0/16", "10.2.0.0/16"), egress("b", "10.3.0.0/16"))
    walk.settle()
    assert [labels[0] for labels in local(walk).values()] == ["cidr:10.1.0.0/16", "cidr:10.2.0.0/16"]
    assert "first 10.3.0.0/16: rules name more prefixes" in walk.prefixes.error
    assert walk.identity_at("10.3.0.1") == 2  # of the world, and of no rule
    walk.tables.policies.delete(("CiliumNetworkPolicy", "default", "a"))
    walk.settle()
    assert [labels[0] for labels in local(walk).values()] == ["cidr:10.3.0.0/16"]
    assert not walk.prefixes.error


def test_a_prefix_that_cannot_be_numbered_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    walk = Walk()
    wrong = PolicyRow("test", "", "wrong", "", 1, (ODD,))
    walk.tables.policies.put(wrong)
    walk.apply(egress("a", "10.0.0.0/8"))
    walk.settle()
    assert sorted(local(walk).values()) == [("cidr:10.0.0.0/8", "reserved:world")]
    assert "prefixes of policy ('test', '', 'wrong') failed" in caplog.text
    walk.tables.policies.delete(("test", "", "wrong"))
    walk.settle()
    assert walk.tables.identities.ready and not walk.prefixes.error
