"""Services. What of one is not served by this version is named in its row, not forgotten."""

from __future__ import annotations

from podwire.sources.objects import (
    PROTOCOLS,
    Object,
    address,
    items,
    labels,
    mapping,
    name_of,
    number,
    protocol,
    text,
    texts,
)
from podwire.state.tables import ServicePort, ServiceRow

AFFINITY_TIMEOUT = 10800  # s, Kubernetes' default


def row_of(item: Object) -> ServiceRow:
    """v1 Service → row."""
    namespace, name = name_of(item)
    spec = mapping(item, "spec")
    return ServiceRow(
        namespace=namespace,
        name=name,
        type=text(spec, "type", "spec", "ClusterIP"),
        cluster_addresses=cluster_addresses_of(spec),
        ports=ports_of(spec),
        labels=labels(mapping(item, "metadata")),
        selector=labels(spec, "selector", "spec"),
        affinity_timeout=affinity_of(spec),
        not_served=not_served_of(item),
    )


def cluster_addresses_of(spec: Object) -> tuple[str, ...]:
    """None for headless services, those without an address yet and ExternalName."""
    if spec.get("type") == "ExternalName":
        return ()
    found = texts(spec, "clusterIPs", "spec") or (text(spec, "clusterIP", "spec"),)
    return tuple(
        address(value, f"spec.clusterIPs[{index}]")
        for index, value in enumerate(found)
        if value and value != "None"
    )


def ports_of(spec: Object) -> tuple[ServicePort, ...]:
    found = []
    for index, port in enumerate(items(spec, "ports", "spec")):
        path = f"spec.ports[{index}]"
        plain = number(port, "port", path)
        target = port.get("targetPort", plain)
        found.append(
            ServicePort(
                name=text(port, "name", path),
                port=plain,
                protocol=protocol(port, path),
                target_port=str(target),
                node_port=number(port, "nodePort", path),
            )
        )
    return tuple(found)


def affinity_of(spec: Object) -> int:
    """Seconds a client keeps its backend; 0 = no affinity."""
    if text(spec, "sessionAffinity", "spec", "None") != "ClientIP":
        return 0
    config = mapping(mapping(spec, "sessionAffinityConfig", "spec"), "clientIP", "spec.sessionAffinityConfig")
    path = "spec.sessionAffinityConfig.clientIP"
    return number(config, "timeoutSeconds", path, AFFINITY_TIMEOUT, most=86400)


def not_served_of(item: Object) -> tuple[str, ...]:
    """Parts of the service that nothing answers for: only its cluster address is served."""
    spec = mapping(item, "spec")
    balancer = mapping(mapping(item, "status"), "loadBalancer", "status")
    parts = [f"NodePort {port.node_port}" for port in ports_of(spec) if port.node_port]
    parts += [f"external address {one}" for one in texts(spec, "externalIPs", "spec")]
    parts += [
        f"load balancer address {text(one, 'ip') or text(one, 'hostname')}"
        for one in items(balancer, "ingress", "status.loadBalancer")
    ]
    parts += [f"SCTP port {port.port}" for port in ports_of(spec) if port.protocol == PROTOCOLS["SCTP"]]
    if (timeout := affinity_of(spec)) not in (0, AFFINITY_TIMEOUT):
        parts.append(f"affinity timeout {timeout} s (clients are kept while the backends stay the same)")
    if text(spec, "internalTrafficPolicy", "spec", "Cluster") == "Local":
        parts.append("internalTrafficPolicy Local")
    if kept := text(spec, "trafficDistribution", "spec"):
        parts.append(f"trafficDistribution {kept}")
    return tuple(parts)
