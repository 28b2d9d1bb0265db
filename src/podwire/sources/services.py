"""Services. What of one is not served by this version is named in its row, not forgotten."""

from __future__ import annotations

from typing import Annotated

import msgspec

from podwire.sources.objects import (
    PROTOCOLS,
    Fields,
    Named,
    Port,
    address,
    items,
    labels_of,
    name_of,
    protocol,
)
from podwire.state.tables import ServicePort, ServiceRow

AFFINITY_TIMEOUT = 10800  # s, Kubernetes' default


class ServicePortSpec(Fields, frozen=True, gc=False):
    name: str | None = None
    port: Port | None = None
    protocol: str | None = None
    target_port: int | str | None = None
    node_port: Port | None = None


class ClientIP(Fields, frozen=True, gc=False):
    timeout_seconds: Annotated[int, msgspec.Meta(ge=0, le=86400)] | None = msgspec.field(
        name="timeoutSeconds", default=None
    )


class Affinity(Fields, frozen=True, gc=False):
    client_ip: ClientIP | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(Fields, frozen=True, gc=False):
    type: str | None = None
    cluster_ip: str | None = msgspec.field(name="clusterIP", default=None)
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    selector: dict[str, str] | None = None
    session_affinity: str | None = None
    affinity: Affinity | None = msgspec.field(name="sessionAffinityConfig", default=None)
    internal_policy: str | None = msgspec.field(name="internalTrafficPolicy", default=None)
    distribution: str | None = msgspec.field(name="trafficDistribution", default=None)
    ports: list[ServicePortSpec] | None = None


class Ingress(Fields, frozen=True, gc=False):
    ip: str | None = None
    hostname: str | None = None


class Balancer(Fields, frozen=True, gc=False):
    ingress: list[Ingress] | None = None


class ServiceStatus(Fields, frozen=True, gc=False):
    load_balancer: Balancer | None = None


class Service(Named, frozen=True, gc=False):
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


def row_of(item: Service) -> ServiceRow:
    """v1 Service → row."""
    namespace, name = name_of(item)
    spec = item.spec or ServiceSpec()
    ports = ports_of(spec)
    return ServiceRow(
        namespace=namespace,
        name=name,
        type=spec.type or "ClusterIP",
        cluster_addresses=cluster_addresses_of(spec),
        ports=ports,
        labels=labels_of(item),
        selector=spec.selector or {},
        affinity_timeout=affinity_of(spec),
        not_served=not_served_of(spec, item.status or ServiceStatus(), ports),
    )


def cluster_addresses_of(spec: ServiceSpec) -> tuple[str, ...]:
    """None for headless services, those without an address yet and ExternalName."""
    if spec.type == "ExternalName":
        return ()
    found = spec.cluster_ips or [spec.cluster_ip or ""]
    return tuple(
        address(value, f"spec.clusterIPs[{index}]")
        for index, value in enumerate(found)
        if value and value != "None"
    )


def ports_of(spec: ServiceSpec) -> tuple[ServicePort, ...]:
    return tuple(
        ServicePort(
            name=port.name or "",
            port=port.port or 0,
            protocol=protocol(port.protocol, f"spec.ports[{index}]"),
            target_port=str(port.port or 0 if port.target_port is None else port.target_port),
            node_port=port.node_port or 0,
        )
        for index, port in items(spec.ports)
    )


def affinity_of(spec: ServiceSpec) -> int:
    """Seconds a client keeps its backend; 0 = no affinity."""
    if spec.session_affinity != "ClientIP":
        return 0
    config = spec.affinity.client_ip if spec.affinity is not None else None
    given = config.timeout_seconds if config is not None else None
    return AFFINITY_TIMEOUT if given is None else given


def not_served_of(
    spec: ServiceSpec, status: ServiceStatus, ports: tuple[ServicePort, ...]
) -> tuple[str, ...]:
    """Parts of the service that nothing answers for: only its cluster address is served."""
    balancer = status.load_balancer or Balancer()
    parts = [f"NodePort {port.node_port}" for port in ports if port.node_port]
    parts += [f"external address {one}" for one in spec.external_ips or ()]
    parts += [f"load balancer address {one.ip or one.hostname or ''}" for one in balancer.ingress or ()]
    parts += [f"SCTP port {port.port}" for port in ports if port.protocol == PROTOCOLS["SCTP"]]
    if (timeout := affinity_of(spec)) not in (0, AFFINITY_TIMEOUT):
        parts.append(f"affinity timeout {timeout} s (clients are kept while the backends stay the same)")
    if spec.internal_policy == "Local":
        parts.append("internalTrafficPolicy Local")
    if spec.distribution:
        parts.append(f"trafficDistribution {spec.distribution}")
    return tuple(parts)
