"""This node's rows as objects of the API: CiliumEndpoint, CiliumNode, a condition of its Node. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.model import protocol as protocols
from podwire.model.event import Saying, event
from podwire.model.labels import pod_labels
from podwire.sources.endpoints import WORKLOAD
from podwire.state.tables import (
    EndpointFailureRow,
    EndpointPolicyRow,
    EndpointRow,
    NodeRow,
    PodRow,
    PolicyFailureRow,
)

Object = dict[str, Any]
RESTRICTION_HINT = "Raise map-growth-max on the node or have policies name fewer peers; see podwire status."
NAMED = 10  # policies that a condition names; of more, their number


def endpoint(row: EndpointRow, pod: PodRow | None) -> Object:
    """A CiliumEndpoint without status. It goes with its pod (owner reference).

    It is all that other nodes are told of the pod, so it says what workload that belongs to.
    """
    metadata: Object = {
        "name": row.pod,
        "namespace": row.namespace,
        "labels": {key: value for key, value in pod_labels(row.labels).items() if "io.cilium" not in key},
    }
    if pod is not None and pod.workload_name:
        metadata["annotations"] = {WORKLOAD: f"{pod.workload_kind}/{pod.workload_name}"}
    if row.uid:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": row.pod, "uid": row.uid}]
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": metadata}


def endpoint_status(
    row: EndpointRow, obeyed: EndpointPolicyRow | None, node_address: str, failure: str = ""
) -> Object:
    """Its status. None removes a member in a merge patch. `failure`: why its policy is not all in force."""
    addressing = {family: address for family, address in (("ipv4", row.ipv4), ("ipv6", row.ipv6)) if address}
    return {
        "id": row.id,
        "external-identifiers": {
            "container-id": row.container_id,
            "k8s-namespace": row.namespace,
            "k8s-pod-name": row.pod,
            "pod-name": f"{row.namespace}/{row.pod}",
        },
        "identity": {"id": row.identity, "labels": list(row.labels)} if row.identity else None,
        "networking": {"addressing": [addressing], "node": node_address},
        "named-ports": [
            {
                "name": port.name,
                "port": port.port,
                "protocol": protocols.or_any(port.protocol),
            }
            for port in row.ports
        ],
        "policy": {
            "ingress": _direction(obeyed is not None and obeyed.enforce_ingress),
            "egress": _direction(obeyed is not None and obeyed.enforce_egress),
        },
        "state": row.state,
        "log": [{"code": "Failed", "state": row.state, "message": failure}] if failure else None,
    }


def _direction(enforcing: bool) -> Object:
    return {"enforcing": enforcing, "state": "enforcing" if enforcing else "<non-enforcing>"}


def node(row: NodeRow) -> Object:
    """A CiliumNode."""
    addresses = [{"type": "InternalIP", "ip": one} for one in row.addresses]
    addresses += [{"type": "CiliumInternalIP", "ip": one} for one in row.router_addresses]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": {"name": row.name, "labels": dict(row.labels)},
        "spec": {"addresses": addresses, "ipam": {"podCIDRs": list(row.pod_cidrs)}},
    }


def failure_of(failure: PolicyFailureRow) -> str:
    return f"{failure.rows} rows of policy {failure.policy} are not in the kernel: {failure.error}"


def restriction_of(failure: EndpointFailureRow) -> str:
    """For people: what an endpoint is denied because the kernel lacks rows, or has a wrong one."""
    if not failure.unknown:
        return failure.error
    return f"denied are peers whose {' or '.join(failure.unknown)} the kernel may lack: {failure.error}"


def restriction_event(row: EndpointRow, failure: EndpointFailureRow, node_name: str, moment: str) -> Object:
    """A Warning about the pod; the same as long as the same is unknown, whatever else the message says."""
    about = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"namespace": row.namespace, "name": row.pod, "uid": row.uid},
    }
    message = f"{restriction_of(failure)}. {RESTRICTION_HINT}"
    saying = Saying("Warning", "PeersUnknown", message, "podwire-agent", node_name)
    return event(about, saying, moment, same=(node_name, *failure.unknown))


ENFORCED = "podwire.io/PoliciesEnforced"


def enforced_condition(failures: Iterable[PolicyFailureRow]) -> Object:
    """Condition of the Node, without its times: whether all policies are in force on it.

    It is the node's and not the policies': one node may have room where another has not, and of 5,000
    conditions in each of 10,000 policies nobody could read any.
    """
    why: dict[str, str] = {}
    for row in failures:
        for origin in row.origins:
            why.setdefault(f"{origin.kind} {origin}", failure_of(row))
    told = [f"{policy}: {reason}" for policy, reason in sorted(why.items())]
    more = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
    message = "; ".join(told[:NAMED] + more)
    return {
        "type": ENFORCED,
        "status": "False" if told else "True",
        "reason": "NotWritten" if told else "Written",
        "message": f"{message}. What was in force stays" if told else "all policies are in the kernel",
    }
