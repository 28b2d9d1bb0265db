"""Rows in the shapes of Cilium's REST API (api/v1), so that its clients can read them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from podwire.abi.enums import PolicyVerdict
from podwire.base.addresses import exact
from podwire.base.telemetry import Metrics
from podwire.model import identity as identities
from podwire.model import protocol as protocols
from podwire.model.cluster import OWN
from podwire.model.labels import Labels
from podwire.model.rule import Direction
from podwire.sources.reports import restriction_of
from podwire.state.tables import (
    ContainerPort,
    EndpointFailureRow,
    EndpointPolicyRow,
    EndpointRow,
    FrontendRow,
    IdentityRow,
    IpcacheRow,
    NodeRow,
    PolicyRow,
    SelectionRow,
)
from podwire.state.views import ReadTables

Shape = dict[str, Any]
PROTOCOL_NAMES = {number: protocols.name(number) for number in protocols.WITH_PORTS}


def protocol_name(number: int) -> str:
    return PROTOCOL_NAMES.get(number, str(number) if number else "ANY")


def timestamp(seconds: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Allowed:
    """Identities that some entry of a policy allows something to; the entries are gone through once."""

    def __init__(self, tables: ReadTables) -> None:
        classes = {
            (entry.policy, entry.direction, entry.peer_class)
            for entry in tables.policy_entries
            if entry.verdict == PolicyVerdict.ALLOW
        }
        self._classes = classes
        self._peers = tables.policy_peers

    def by(self, policy: int, direction: Direction) -> list[int]:
        named = self._peers.of(policy, direction).items()
        return [identity for identity, one in named if (policy, direction, one) in self._classes]


def endpoints(tables: ReadTables, rows: Iterable[EndpointRow]) -> Iterator[Shape]:
    allowed = Allowed(tables)
    return (endpoint(tables, row, allowed) for row in rows)


def endpoint(tables: ReadTables, row: EndpointRow, allowed: Allowed | None) -> Shape:
    """Without `allowed` it is not said whom its policy allows: a policy may have very many peers."""
    obeyed = tables.endpoint_policies.get(row.id)
    healthy = row.state == "ready"
    restricted = tables.endpoint_failures.get(row.id)
    policy = endpoint_policy(row, obeyed, allowed)
    return {
        "id": row.id,
        "spec": {"label-configuration": {"user": []}, "options": {}},
        "status": {
            "controllers": [],
            "external-identifiers": {
                "cni-attachment-id": f"{row.container_id}:{row.pod_interface}",
                "container-id": row.container_id,
                "k8s-namespace": row.namespace,
                "k8s-pod-name": row.pod,
                "pod-name": f"{row.namespace}/{row.pod}",
            },
            "health": health(row, restricted),
            "identity": identity_of(row.identity, row.labels) if row.identity else None,
            "labels": labels(row),
            "log": log(row, restricted),
            "namedPorts": [named_port(port) for port in row.ports],
            "networking": {
                "addressing": [{"ipv4": row.ipv4, "ipv6": row.ipv6}],
                "container-interface-name": row.pod_interface,
                "host-mac": row.host_mac,
                "interface-index": row.ifindex,
                "interface-name": row.interface,
                "mac": row.mac,
            },
            "policy": {"proxy-statistics": [], "realized": policy, "spec": policy},
            "realized": {"label-configuration": {"user": []}, "options": {}},
            "state": row.state,
            "error": obeyed.error if obeyed and not healthy else "",
            "denied-unknown": list(restricted.unknown) if restricted else [],
        },
    }


def labels(row: EndpointRow) -> Shape:
    """Cilium's LabelConfigurationStatus."""
    return {"derived": [], "disabled": [], "realized": {"user": []}, "security-relevant": row.labels}


def endpoint_policy(row: EndpointRow, obeyed: EndpointPolicyRow | None, allowed: Allowed | None) -> Shape:
    policy = obeyed.policy if obeyed else 0
    shape: Shape = {
        "id": row.identity,
        "build": obeyed.revision if obeyed else 0,
        "policy-revision": obeyed.revision if obeyed else 0,
        "policy-enabled": enforcement(obeyed),
        "denied-ingress-identities": [],
        "denied-egress-identities": [],
        "cidr-policy": {"egress": [], "ingress": []},
        "l4": {"egress": [], "ingress": []},
    }
    if allowed is not None:
        shape |= {f"allowed-{one.word}-identities": allowed.by(policy, one) for one in Direction}
    return shape


def enforcement(obeyed: EndpointPolicyRow | None) -> str:
    """none | ingress | egress | both"""
    match (obeyed.enforce_ingress, obeyed.enforce_egress) if obeyed else (False, False):
        case (True, True):
            return "both"
        case (True, False):
            return "ingress"
        case (False, True):
            return "egress"
        case _:
            return "none"


def health(row: EndpointRow, restricted: EndpointFailureRow | None) -> Shape:
    """Cilium's EndpointHealth. One that is denied what the kernel does not know has not all of its policy."""
    word = {"ready": "OK", "disconnecting": "Disabled"}.get(row.state, "Bootstrap")
    policy = "Warning" if word == "OK" and restricted is not None else word
    return {"bpf": word, "policy": policy, "connected": row.state == "ready", "overallHealth": policy}


def log(row: EndpointRow, restricted: EndpointFailureRow | None) -> list[Shape]:
    code, message = ("Failed", restriction_of(restricted)) if restricted is not None else ("OK", row.state)
    return [{"code": code, "message": message, "state": row.state, "timestamp": timestamp(row.created)}]


def named_port(port: ContainerPort) -> Shape:
    return {"name": port.name, "port": port.port, "protocol": protocol_name(port.protocol)}


def identity_of(number: int, labels: Labels) -> Shape:
    text = "".join(f"{label};" for label in labels)
    return {"id": number, "labels": list(labels), "labelsSHA256": hashlib.sha256(text.encode()).hexdigest()}


def identity(row: IdentityRow) -> Shape:
    return identity_of(row.number, row.labels)


def one_identity(tables: ReadTables, number: int) -> Shape | None:
    row = tables.identities.get(number)
    if row is not None:
        return identity(row)
    return next(
        (identity_of(one.number, one.labels) for one in identities.RESERVED if one.number == number), None
    )


def all_identities(tables: ReadTables) -> Iterator[Shape]:
    """The table's, and the reserved ones if it does not list them; each is made when it is asked for."""
    known = {row.number: row.labels for row in tables.identities}
    labels = {one.number: one.labels for one in identities.RESERVED} | known
    return (identity_of(number, labels[number]) for number in sorted(labels))


def ip(row: IpcacheRow) -> Shape:
    prefix = row.prefix if "/" in row.prefix else exact(row.prefix)
    metadata = {"name": row.pod, "namespace": row.namespace, "source": row.source}
    return {
        "cidr": prefix,
        "identity": row.identity,
        "hostIP": row.tunnel,
        "encryptKey": row.key,
        "metadata": metadata,
    }


def services(tables: ReadTables) -> Iterator[Shape]:
    """One per frontend, by number, as `service list` has them."""
    return (service(tables, row) for row in sorted(tables.frontends, key=lambda row: row.rev_nat))


def service(tables: ReadTables, row: FrontendRow) -> Shape:
    source = tables.services.get((OWN, row.namespace, row.service))
    spec = {
        "id": row.rev_nat,
        "frontend-address": {
            "ip": row.address,
            "port": row.port,
            "protocol": protocol_name(row.protocol),
            "scope": "external",
        },
        "backend-addresses": [
            {
                "ip": one.address,
                "port": one.port,
                "protocol": protocol_name(one.protocol),
                "nodeName": one.node,
                "state": one.state,
            }
            for number in row.backends
            if (one := tables.backends.get(number)) is not None
        ],
        "flags": {
            "type": "ClusterIP" if source and row.address in source.cluster_addresses else row.type,
            "name": row.service,
            "namespace": row.namespace,
            "cluster": "",
            "natPolicy": "Nat66" if ":" in row.address else "Nat44",
        },
    }
    # Cilium lists a frontend of each type; here only the cluster address is one, the rest is named.
    not_served = list(source.not_served) if source else []
    return {
        "spec": spec,
        "status": {"realized": spec},
        "podwire": {"type": row.type, "not-served": not_served},
    }


def headless_and_unserved(tables: ReadTables) -> list[Shape]:
    """Services of which something is not served: (namespace, name, what)."""
    return [
        {"namespace": row.namespace, "name": row.name, "type": row.type, "not-served": list(row.not_served)}
        for row in tables.services
        if row.not_served and row.cluster == OWN
    ]


def node(row: NodeRow, cluster: str) -> Shape:
    """A NodeElement."""

    def address(family: int) -> Shape:
        mine = [one for one in row.addresses if (":" in one) == (family == 6)]
        cidrs = [one for one in row.pod_cidrs if (":" in one) == (family == 6)]
        return {
            "enabled": bool(mine),
            "ip": mine[0] if mine else "",
            "alloc-range": cidrs[0] if cidrs else "",
            "address-type": "InternalIP",
        }

    return {
        "name": f"{row.cluster or cluster}/{row.name}",
        "primary-address": {"ipv4": address(4), "ipv6": address(6)},
        "secondary-addresses": [
            {"enabled": True, "ip": one, "address-type": "CiliumInternalIP"} for one in row.router_addresses
        ],
        "health-endpoint-address": {"ipv4": {"enabled": False}, "ipv6": {"enabled": False}},
        "ingress-address": {"ipv4": {"enabled": False}, "ipv6": {"enabled": False}},
        "source": "local" if row.local else "clustermesh" if row.cluster else "custom-resource",
    }


def policy(row: PolicyRow) -> Shape:
    """A policy object as `policy get` shows it; its clauses by path."""
    return {
        "kind": row.kind,
        "namespace": row.namespace,
        "name": row.name,
        "uid": row.uid,
        "generation": row.generation,
        "error": row.error,
        "rules": [
            {
                "index": rule.index,
                "subject": str(rule.subject),
                "description": rule.description,
                "labels": list(rule.labels),
                "default-deny": {"ingress": rule.default_deny_ingress, "egress": rule.default_deny_egress},
                "clauses": [
                    {
                        "path": clause.path,
                        "direction": clause.direction.word,
                        "effect": clause.effect.name.lower(),
                        "peers": None if clause.peers is None else [str(peer) for peer in clause.peers],
                        "ports": None
                        if clause.ports is None
                        else [port_range(port) for port in clause.ports],
                    }
                    for clause in rule.clauses
                ],
            }
            for rule in row.rules
        ],
    }


def port_range(port: Any) -> str:
    """``8080/TCP``, ``8000-8100/UDP``, ``http/TCP`` (a named port) or ``ANY``."""
    protocol = protocol_name(port.protocol)
    if port.name:
        return f"{port.name}/{protocol}"
    if (port.first, port.last) == (0, 65535):
        return protocol
    numbers = str(port.first) if port.first == port.last else f"{port.first}-{port.last}"
    return f"{numbers}/{protocol}"


def selector(row: SelectionRow) -> Shape:
    return {
        "selector": str(row.selector),
        "identities": sorted(row.identities),
        "users": row.users,
        "labels": [],
    }


def metrics(metrics: Metrics) -> list[Shape]:
    """Cilium's list of {name, labels, value}."""
    return [
        {"name": one.name, "labels": dict(labels), "value": value}
        for one in metrics
        for labels, value in one.collect()
    ]
