"""Why a connection came out as it did: flows of an attempt, and the rule they name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from podwire.api import flow_pb2
from podwire.sandbox import connectivity
from podwire.sandbox.connectivity import Attempt, Outcome
from podwire.testing.observed import flow_of

ATTEMPT = Attempt("prod", "web", "10.0.2.3", 80, pods=("prod/db",))


def policy(name: str, *labels: str) -> flow_pb2.Policy:
    return flow_pb2.Policy(name=name, namespace="prod", kind="CiliumNetworkPolicy", labels=labels)


def flow(verdict: str = "FORWARDED", *, port: int = 80, source: str = "web", **more: Any) -> flow_pb2.Flow:
    return flow_pb2.Flow(
        verdict=flow_pb2.Verdict.Value(verdict),
        IP=flow_pb2.IP(source="10.0.1.2", destination="10.0.2.3"),
        l4=flow_pb2.Layer4(TCP=flow_pb2.TCP(destination_port=port)),
        source=flow_pb2.Endpoint(namespace="prod", pod_name=source),
        destination=flow_pb2.Endpoint(namespace="prod", pod_name="db"),
        **more,
    )


def why(result: str, *flows: flow_pb2.Flow) -> str:
    responses = [SimpleNamespace(flow=one) for one in flows]
    return connectivity.why(Outcome(ATTEMPT, result), responses)


ALLOWED = flow(ingress_allowed_by=[policy("p", "podwire:clause=ingress[0]")])
DENIED = flow("DROPPED", ingress_denied_by=[policy("p", "podwire:default-deny")])
EGRESS = flow(egress_allowed_by=[policy("q", "podwire:clause=egress[1]")])


def test_the_rule_that_decided() -> None:
    assert why("ok", ALLOWED) == "prod/p ingress[0]"
    assert why("ok", EGRESS, ALLOWED, ALLOWED) == "prod/q egress[1], prod/p ingress[0]"
    assert why("timeout", EGRESS, DENIED) == "default deny (prod/p)"
    assert why("ok", flow()) == "no policy selects it"


def test_other_connections_do_not_count() -> None:
    assert why("ok", flow(port=81), flow(source="other")) == ""
    assert why("timeout", flow()) == ""


@pytest.mark.parametrize(
    ("expected", "result", "fine"),
    [
        (True, "ok", True),
        (True, "timeout", False),
        (False, "timeout", True),
        (False, "ok", False),
        (False, "unknown name", False),
        (False, "refused", False),
    ],
)
def test_only_silence_is_a_denial(expected: bool, result: str, fine: bool) -> None:
    attempt = Attempt("a", "b", "c", 1, expected=expected)
    assert Outcome(attempt, result).as_expected is fine


def test_a_flow_as_tests_see_it() -> None:
    message = flow("DROPPED", drop_reason_desc=flow_pb2.DropReason.POLICY_DENIED, node_name="default/n1")
    found = flow_of(message)
    assert (found.source, found.destination, found.protocol, found.port) == ("prod/web", "prod/db", "TCP", 80)
    assert (found.verdict, found.drop_reason, found.node) == ("DROPPED", "POLICY_DENIED", "default/n1")
    outside = flow_of(flow_pb2.Flow(IP=flow_pb2.IP(source="1.2.3.4", destination="10.0.2.3")))
    assert (outside.source, outside.destination, outside.port) == ("1.2.3.4", "10.0.2.3", 0)
