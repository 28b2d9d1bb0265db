"""Pods of all nodes: addresses, labels, named ports, and the workload they belong to."""

from __future__ import annotations

from podwire.sources.objects import (
    Object,
    address,
    flag,
    items,
    labels,
    mapping,
    name_of,
    number,
    protocol,
    text,
)
from podwire.state.tables import ContainerPort, PodRow

FINISHED = ("Succeeded", "Failed")
TEMPLATE_HASH = "pod-template-hash"


def row_of(item: Object) -> PodRow:
    """v1 Pod → row. A finished pod has no addresses: others may have been given them."""
    namespace, name = name_of(item)
    metadata, spec, status = mapping(item, "metadata"), mapping(item, "spec"), mapping(item, "status")
    phase = text(status, "phase", "status", "Pending")
    own = labels(metadata)
    kind, workload = workload_of(metadata, own, name)
    return PodRow(
        namespace=namespace,
        name=name,
        uid=text(metadata, "uid", "metadata"),
        node=text(spec, "nodeName", "spec"),
        addresses=() if phase in FINISHED else addresses_of(status),
        labels=own,
        service_account=text(spec, "serviceAccountName", "spec", "default"),
        host_network=flag(spec, "hostNetwork", "spec"),
        phase=phase,
        ports=named_ports_of(spec),
        workload_kind=kind,
        workload_name=workload,
        deleting=metadata.get("deletionTimestamp") is not None,
    )


def addresses_of(status: Object) -> tuple[str, ...]:
    found = [
        address(text(entry, "ip", path), f"{path}.ip")
        for index, entry in enumerate(items(status, "podIPs", "status"))
        for path in (f"status.podIPs[{index}]",)
    ]
    if not found and (single := text(status, "podIP", "status")):
        found = [address(single, "status.podIP")]
    return tuple(dict.fromkeys(found))


def named_ports_of(spec: Object) -> tuple[ContainerPort, ...]:
    found = []
    for index, container in enumerate(items(spec, "containers", "spec")):
        path = f"spec.containers[{index}]"
        for position, port in enumerate(items(container, "ports", path)):
            where = f"{path}.ports[{position}]"
            name = text(port, "name", where)
            if name:
                found.append(ContainerPort(name, number(port, "containerPort", where), protocol(port, where)))
    return tuple(found)


def workload_of(metadata: Object, own: dict[str, str], pod: str) -> tuple[str, str]:
    """(kind, name) of the topmost owner that can be told from the pod alone.

    A ReplicaSet that was made by a Deployment has the Deployment's name and the pod's template hash
    in its own. A pod without owner is its own workload.
    """
    owners = items(metadata, "ownerReferences", "metadata")
    owner = next((one for one in owners if one.get("controller") is True), None)
    if owner is None:
        return "Pod", pod
    kind, name = text(owner, "kind"), text(owner, "name")
    template = own.get(TEMPLATE_HASH)
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return "Deployment", name.removesuffix(f"-{template}")
    return kind, name
