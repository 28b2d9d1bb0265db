"""This node's rows as objects of the API: CiliumEndpoint, CiliumNode, conditions of policies. Pure."""

from __future__ import annotations

from typing import Any

from podwire.model.labels import pod_labels
from podwire.sources.objects import PROTOCOLS
from podwire.state.tables import EndpointPolicyRow, EndpointRow, NodeRow, PolicyRow

Object = dict[str, Any]
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


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


def endpoint_status(row: EndpointRow, obeyed: EndpointPolicyRow | None, node_address: str) -> Object:
    """Its status. None removes a member in a merge patch."""
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
            {"name": port.name, "port": port.port, "protocol": PROTOCOL_NAMES.get(port.protocol, "ANY")}
            for port in row.ports
        ],
        "policy": {
            "ingress": _direction(obeyed is not None and obeyed.enforce_ingress),
            "egress": _direction(obeyed is not None and obeyed.enforce_egress),
        },
        "state": row.state,
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


def policy_condition(row: PolicyRow) -> Object:
    """Condition Valid, without its time."""
    return {
        "type": "Valid",
        "status": "False" if row.error else "True",
        "reason": "Refused" if row.error else "Accepted",
        "message": row.error or "Policy validation succeeded",
    }
