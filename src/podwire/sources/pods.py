"""Pods of this node: addresses, labels, named ports, and the workload they belong to.

Those of other nodes come as the CiliumEndpoints their agents write (`podwire.sources.endpoints`).
"""

from __future__ import annotations

import msgspec

from podwire.sources.objects import (
    Fields,
    Metadata,
    Named,
    Port,
    address,
    items,
    labels_of,
    name_of,
    protocol,
)
from podwire.state.tables import ContainerPort, PodRow

FINISHED = ("Succeeded", "Failed")
TEMPLATE_HASH = "pod-template-hash"


class Owner(Fields, frozen=True, gc=False):
    kind: str | None = None
    name: str | None = None
    controller: bool | None = None


class PodMetadata(Metadata, frozen=True, gc=False):
    owner_references: list[Owner] | None = None
    deletion_timestamp: str | None = None


class PodPort(Fields, frozen=True, gc=False):
    name: str | None = None
    container_port: Port | None = None
    protocol: str | None = None


class Container(Fields, frozen=True, gc=False):
    ports: list[PodPort] | None = None


class PodSpec(Fields, frozen=True, gc=False):
    node_name: str | None = None
    service_account_name: str | None = None
    host_network: bool | None = None
    containers: list[Container] | None = None


class PodAddress(Fields, frozen=True, gc=False):
    ip: str | None = None


class PodStatus(Fields, frozen=True, gc=False):
    phase: str | None = None
    pod_ip: str | None = msgspec.field(name="podIP", default=None)
    pod_ips: list[PodAddress] | None = msgspec.field(name="podIPs", default=None)


class Pod(Named, frozen=True, gc=False):
    metadata: PodMetadata | None = None
    spec: PodSpec | None = None
    status: PodStatus | None = None


def row_of(item: Pod) -> PodRow:
    """v1 Pod → row. A finished pod has no addresses: others may have been given them."""
    namespace, name = name_of(item)
    metadata = item.metadata or PodMetadata()
    spec, status = item.spec or PodSpec(), item.status or PodStatus()
    phase = status.phase or "Pending"
    own = labels_of(item)
    kind, workload = workload_of(metadata, own, name)
    return PodRow(
        namespace=namespace,
        name=name,
        uid=metadata.uid or "",
        node=spec.node_name or "",
        addresses=() if phase in FINISHED else addresses_of(status),
        labels=own,
        service_account=spec.service_account_name or "default",
        host_network=bool(spec.host_network),
        phase=phase,
        ports=named_ports_of(spec),
        workload_kind=kind,
        workload_name=workload,
        deleting=metadata.deletion_timestamp is not None,
    )


def addresses_of(status: PodStatus) -> tuple[str, ...]:
    found = [address(entry.ip or "", f"status.podIPs[{index}].ip") for index, entry in items(status.pod_ips)]
    if not found and status.pod_ip:
        found = [address(status.pod_ip, "status.podIP")]
    return tuple(dict.fromkeys(found))


def named_ports_of(spec: PodSpec) -> tuple[ContainerPort, ...]:
    return tuple(
        ContainerPort(port.name, port.container_port or 0, protocol(port.protocol, path))
        for index, container in items(spec.containers)
        for position, port in items(container.ports)
        for path in (f"spec.containers[{index}].ports[{position}]",)
        if port.name
    )


def workload_of(metadata: PodMetadata, own: dict[str, str], pod: str) -> tuple[str, str]:
    """(kind, name) of the topmost owner that can be told from the pod alone.

    A ReplicaSet that was made by a Deployment has the Deployment's name and the pod's template hash
    in its own. A pod without owner is its own workload.
    """
    owner = next((one for one in metadata.owner_references or () if one.controller), None)
    if owner is None:
        return "Pod", pod
    kind, name = owner.kind or "", owner.name or ""
    template = own.get(TEMPLATE_HASH)
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return "Deployment", name.removesuffix(f"-{template}")
    return kind, name
