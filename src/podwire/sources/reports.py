"""This node's rows as objects of the API: CiliumEndpoint, CiliumNode, conditions of policies. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.model import protocol as protocols
from podwire.model.event import Saying, event
from podwire.model.labels import pod_labels
from podwire.state.tables import (
    EndpointFailureRow,
    EndpointPolicyRow,
    EndpointRow,
    NodeRow,
    PolicyFailureRow,
    PolicyRow,
)

Object = dict[str, Any]
RESTRICTION_HINT = "Raise map-growth-max on the node or have policies name fewer peers; see podwire status."


def endpoint(row: EndpointRow) -> Object:
    """A CiliumEndpoint without status. It goes with its pod (owner reference)."""
    metadata: Object = {
        "name": row.pod,
        "namespace": row.namespace,
        "labels": {key: value for key, value in pod_labels(row.labels).items() if "io.cilium" not in key},
    }
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


def enforced_type(node_name: str) -> str:
    """Each node has a condition of its own: one may have room where another has not."""
    return f"podwire.io/Enforced.{node_name}"


def enforced_condition(node_name: str, failures: Iterable[PolicyFailureRow]) -> Object:
    """Whether a policy is in force on a node; the last word of those that were not."""
    why = "; ".join(map(failure_of, failures))
    return {
        "type": enforced_type(node_name),
        "status": "False" if why else "True",
        "reason": "NotWritten" if why else "Written",
        "message": f"{why}. What was in force on the node stays" if why else "all rows are in the kernel",
    }


def policy_condition(row: PolicyRow) -> Object:
    """Condition Valid, without its time."""
    return {
        "type": "Valid",
        "status": "False" if row.error else "True",
        "reason": "Refused" if row.error else "Accepted",
        "message": row.error or "Policy validation succeeded",
    }
