"""/v1/healthz, /v1/config and /v1/debuginfo: how the agent is, in Cilium's shapes.

Complete enough that Cilium's own client prints it with all details: what it reads without asking
whether it is there (masquerading, kube-proxy replacement, bandwidth manager …) is always there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import podwire
from podwire.agent.interface import DISABLED, FAILURE, OK, WARNING, Facts, Node
from podwire.agent.server import features, shapes
from podwire.base.attempts import Attempts
from podwire.datapath.catalogue import CATALOGUE
from podwire.model.identity import of_cluster

Shape = dict[str, Any]
MAPS = {spec.name: spec.title for spec in CATALOGUE.values() if spec.title}
NEVER = "0001-01-01T00:00:00.000Z"  # what Go calls no time
SEVERITY = {DISABLED: 0, OK: 0, WARNING: 1, FAILURE: 2}


def overall(components: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """The worst state, with the message of the first component that has it."""
    worst = max(components.items(), key=lambda one: SEVERITY.get(one[1][0], 2), default=None)
    if worst is None or SEVERITY.get(worst[1][0], 2) == 0:
        return OK, f"{podwire.__version__}"
    return worst[1][0], f"{worst[0]}: {worst[1][1]}"


def healthz(node: Node, *, brief: bool = False) -> Shape:
    """StatusResponse. `podwire` beside Cilium's members holds all components by name."""
    components = dict(node.status())
    state, message = overall(components)
    answer: Shape = {"cilium": _status((state, message))}
    if brief:
        return answer
    config, facts = node.config, node.facts()
    numbers = of_cluster(config.cluster_id, config.max_connected_clusters)
    answer |= {
        "kubernetes": _kubernetes(components, facts),
        "hubble": _hubble(components, facts),
        "kvstore": _status((DISABLED, "")),
        "container-runtime": _status((OK, "none is asked")),
        "auth-certificate-provider": _status((DISABLED, "")),
        "cluster": {
            "ciliumHealth": _status((DISABLED, "nodes are not probed")),
            "self": f"{config.cluster_name}/{config.node_name}",
            "nodes": [shapes.node(row, config.cluster_name) for row in node.tables.nodes],
        },
        "cluster-mesh": {"clusters": [], "num-global-services": 0},
        "controllers": [_controller(name, one) for name, one in node.controllers().items()],
        "ipam": _ipam(node),
        "proxy": None,
        "identity-range": {"min-identity": numbers[0], "max-identity": numbers[-1]},
        "policy-enforcement-mode": config.enable_policy,
        "podwire": {
            "version": podwire.__version__,
            "node": config.node_name,
            "components": {name: {"state": one[0], "msg": one[1]} for name, one in components.items()},
            "tables": _tables(node),
            "services-not-served": shapes.headless_and_unserved(node.tables),
            "invalid-policies": [
                {"kind": row.kind, "namespace": row.namespace, "name": row.name, "error": row.error}
                for row in node.tables.policies
                if row.error
            ],
        },
    }
    return answer | _features(node, facts)


def _features(node: Node, facts: Facts) -> Shape:
    """What is on and off. Off is said, too."""
    config = node.config
    families = {"ipv4": config.enable_ipv4, "ipv6": config.enable_ipv6}
    programs = "BPF" if facts.attach_mode != "none" else "Legacy"  # who hands packets to pods
    return {
        "kube-proxy-replacement": _services(node, facts),
        **features.OPTIONAL,
        "host-routing": {"mode": programs},
        "cni-file": {"state": DISABLED, "msg": "not managed by the agent"},
        "clock-source": {"mode": "ktime", "hertz": os.sysconf("SC_CLK_TCK")},
        **features.big_tcp(facts.segments),
        "datapath-mode": facts.pod_device,
        "attach-mode": facts.attach_mode,
        "routing": {
            "inter-host-routing-mode": "Tunnel" if config.routing_mode == "tunnel" else "Native",
            "intra-host-routing-mode": programs,
            "tunnel-protocol": "vxlan" if config.routing_mode == "tunnel" else "",
        },
        "bpf-maps": {
            "maps": [
                {"name": text, "size": facts.maps[name]} for name, text in MAPS.items() if name in facts.maps
            ],
        },
        "nodeMonitor": _monitor(facts) | {"lost": facts.lost, "unknown": facts.unknown},
        "address-families": [name for name, on in families.items() if on],
    }


def _services(node: Node, facts: Facts) -> Shape:
    """KubeProxyReplacement: whole (True) only if nothing that kube-proxy serves is left to it."""
    config = node.config
    # Reading it anew for each answer costs a row; the device may have got another address.
    device = {
        "name": config.device,
        "ip": [ip for row in node.tables.nodes if row.local for ip in row.addresses],
    }
    whole = all(features.SERVICES[name]["enabled"] for name in ("nodePort", "hostPort", "externalIPs"))
    return {
        "mode": str(whole),
        "devices": [config.device],
        "deviceList": [device],
        "directRoutingDevice": config.device,
        "features": {
            "socketLB": {"enabled": facts.socket_services},
            "annotations": [],
            "sessionAffinity": {"enabled": True},
            "gracefulTermination": {"enabled": True},
            **features.SERVICES,
        },
    }


def config(node: Node) -> Shape:
    """/v1/config: what CNI plugins ask first."""
    options, facts = node.config.as_mapping(), node.facts()
    realized: Shape = {"options": {}, "policy-enforcement": node.config.enable_policy}
    masquerading = features.OPTIONAL["masquerading"]
    local = next((row for row in node.tables.nodes if row.local), None)
    return {
        "spec": realized,
        "status": {
            "addressing": addressing(node),
            "datapathMode": facts.pod_device,
            "deviceMTU": node.mtu(),
            "routeMTU": facts.route_mtu,
            "enable-route-mtu-for-cni-chaining": False,
            # Blocks are the Node object's own; a node without has none, and no mode of giving out addresses.
            "ipam-mode": "kubernetes" if local is not None and local.pod_cidrs else "",
            **features.segment_sizes(facts.segments),
            "masquerade": masquerading["enabled"],
            "masqueradeProtocols": masquerading["enabledProtocols"],
            "daemonConfigurationMap": {key: value for key, value in options.items() if "key" not in key},
            "realized": realized,
            "immutable": {},
            "k8s-configuration": node.config.kubeconfig,
            "nodeMonitor": _monitor(facts),
            "kvstoreConfiguration": {"type": "", "options": {}},
        },
    }


def addressing(node: Node) -> Shape:
    """Gateways and pod CIDRs of this node: NodeAddressing."""
    local = next((row for row in node.tables.nodes if row.local), None)

    def of(family: int, enabled: bool) -> Shape:
        def first(values: tuple[str, ...]) -> str:
            return next((value for value in values if (":" in value) == (family == 6)), "")

        if local is None:
            return {"enabled": enabled, "ip": "", "alloc-range": ""}
        return {
            "enabled": enabled,
            "ip": first(local.router_addresses),
            "alloc-range": first(local.pod_cidrs),
            "address-type": "InternalIP",
        }

    return {"ipv4": of(4, node.config.enable_ipv4), "ipv6": of(6, node.config.enable_ipv6)}


def debuginfo(node: Node) -> Shape:
    kernel = os.uname()
    return {
        "cilium-version": f"{podwire.__version__} podwire",
        "kernel-version": kernel.release,
        "cilium-status": healthz(node),
        "endpoint-list": list(shapes.endpoints(node.tables, node.tables.endpoints)),
        "service-list": list(shapes.services(node.tables)),
        "policy": {"revision": 1 + node.tables.policies.revision, "policy": ""},
        "subsystem": {},
        "environment-variables": [],
    }


def _status(status: tuple[str, str]) -> Shape:
    return {"state": status[0], "msg": status[1]}


def _kubernetes(components: Mapping[str, tuple[str, str]], facts: Facts) -> Shape:
    state, message = components.get("kubernetes", (DISABLED, ""))
    return {"state": state, "msg": message, "k8s-api-versions": list(facts.watched)}


def _monitor(facts: Facts) -> Shape:
    page = os.sysconf("SC_PAGE_SIZE")
    return {"cpus": os.cpu_count() or 1, "npages": facts.ring_bytes // page, "pagesize": page}


def _hubble(components: Mapping[str, tuple[str, str]], facts: Facts) -> Shape:
    state, message = components.get("hubble", (DISABLED, ""))
    return {
        "state": state,
        "msg": message,
        "metrics": {"state": DISABLED, "msg": ""},
        "observer": {
            "current-flows": facts.flows,
            "max-flows": facts.flows_at_most,
            "seen-flows": facts.flows_seen,
            "uptime": f"{facts.uptime:.0f}s",
        },
    }


def _controller(name: str, attempts: Attempts) -> Shape:
    return {
        "name": name,
        "uuid": "",
        "configuration": {"error-retry": True},
        "status": {
            "success-count": attempts.successes,
            "failure-count": attempts.failures,
            "consecutive-failure-count": attempts.in_a_row,
            "last-failure-msg": attempts.error,
            "last-failure-timestamp": _when(attempts.last_failure),
            "last-success-timestamp": _when(attempts.last_success),
        },
    }


def _when(seconds: float) -> str:
    return shapes.timestamp(seconds) if seconds else NEVER


def _ipam(node: Node) -> Shape:
    allocations = dict(node.allocations())
    local = next((row for row in node.tables.nodes if row.local), None)
    parts = [
        f"{'IPv6' if ':' in cidr else 'IPv4'}: "
        f"{sum((':' in one) == (':' in cidr) for one in allocations)} allocated from {cidr}"
        for cidr in (local.pod_cidrs if local else ())
    ]
    return {
        "status": ", ".join(parts),
        "allocations": allocations,
        "ipv4": [one for one in allocations if ":" not in one],
        "ipv6": [one for one in allocations if ":" in one],
    }


def _tables(node: Node) -> Shape:
    return {
        table.name: {"rows": len(table), "ready": table.ready, "revision": table.revision}
        for table in node.tables
    }
