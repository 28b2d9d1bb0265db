"""Node objects: registered, kept alive by a Lease, Ready while their agent answers.

In the walk this is what a kubelet tells of its node; the pod CIDRs are the plan's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from datetime import UTC, datetime
from typing import Any

import podwire
from podwire.base.errors import PodwireError
from podwire.client.agent import AsyncAgentClient
from podwire.sandbox.cluster import Cluster, now
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Node, Plan

log = logging.getLogger(__name__)
Object = dict[str, Any]
LEASE_SECONDS = 40
RENEW = 10.0  # s
# s an agent may be away before its node is not ready: the datapath goes on without it, so a restart
# must not take a node's pods out of their Services. As long as Kubernetes waits for a node.
GRACE = 40.0
PATIENCE = 8.0  # s without an answer until a node that was ready counts as not ready
QUICK, SLOW = 0.03, 2.0  # s between questions to an agent that is not ready yet, and to one that is


def register(cluster: Cluster, plan: Plan, node: Node) -> None:
    """Node and CiliumNode, whole, but not Ready yet; those of an earlier control process stay as they are."""
    if cluster.find("nodes", "", node.name) is None:
        cluster.ensure("nodes", "", _node(plan, node))
    cluster.ensure("ciliumnodes.cilium.io", "", _cilium_node(node))
    _renew(cluster, node)


async def keep(cluster: Cluster, places: Places, node: Node, ready: asyncio.Event) -> None:
    """Renew the lease and report whether the agent is well, for ever. `ready` is set once it is."""
    agent = AsyncAgentClient(places.node(node.name) / "podwire.sock", node=node.name, timeout=5)
    loop = asyncio.get_running_loop()
    renewed = loop.time()
    said, well_at = "", -GRACE
    while True:
        if loop.time() - renewed >= RENEW:
            _renew(cluster, node)
            renewed = loop.time()
        well, why = await _ask(agent)
        if well:
            well_at = loop.time()
        elif loop.time() - well_at < GRACE:
            await asyncio.sleep(SLOW / 10)
            continue
        if why != said or well != ready.is_set():
            _report(cluster, node, well, why)
            said = why
        (ready.set if well else ready.clear)()
        await asyncio.sleep(SLOW if well else QUICK)


def _is_ready(cluster: Cluster, node: Node) -> bool:
    """What the object says, from an earlier control process."""
    conditions = (cluster.find("nodes", "", node.name) or {}).get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def _ask(agent: AsyncAgentClient) -> tuple[bool, str]:
    try:
        answer = await agent.get("/v1/healthz", brief="true")
    except PodwireError as error:
        return False, str(error)
    state = (answer.get("cilium") or {}).get("state", "")
    return state != "Failure", str((answer.get("cilium") or {}).get("msg", ""))


def _report(cluster: Cluster, node: Node, well: bool, why: str) -> None:
    def edit(old: Object) -> Object:
        conditions = {one["type"]: one for one in old["status"].get("conditions") or []}
        fresh = _ready(well, why)
        before = conditions.get("Ready")
        if before and before.get("status") == fresh["status"]:
            fresh["lastTransitionTime"] = before["lastTransitionTime"]
        old["status"]["conditions"] = [*(one for name, one in conditions.items() if name != "Ready"), fresh]
        return old

    cluster.edit_status("nodes", "", node.name, edit)
    kind = cluster.objects.kind("nodes")
    taints = [] if well else [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]

    def taint(old: Object) -> Object:
        spec = old.setdefault("spec", {})
        others = [one for one in spec.get("taints") or [] if one["key"] != "node.kubernetes.io/not-ready"]
        spec["taints"] = others + taints
        if not spec["taints"]:
            del spec["taints"]
        return old

    if cluster.find("nodes", "", node.name) is not None:
        cluster.objects.change(kind, "", node.name, taint)


def _ready(well: bool, why: str) -> Object:
    return {
        "type": "Ready",
        "status": "True" if well else "False",
        "reason": "KubeletReady" if well else "NetworkPluginNotReady",
        "message": "the agent is ready" if well else f"the agent is not ready: {why}",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }


def _renew(cluster: Cluster, node: Node) -> None:
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": node.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": moment}
    body = {"metadata": {"name": node.name, "namespace": "kube-node-lease"}, "spec": spec}
    cluster.ensure("leases.coordination.k8s.io", "kube-node-lease", body)


def _node(plan: Plan, node: Node) -> Object:
    release = platform.uname().release
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    sizes = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory // 1024}Ki", "pods": "250"}
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64" if platform.machine() == "x86_64" else platform.machine(),
        "podwire.io/sandbox": plan.name,
    }
    addresses = [{"type": "InternalIP", "address": address} for address in node.addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels},
        "spec": {
            "podCIDR": node.pod_cidrs[0],
            "podCIDRs": list(node.pod_cidrs),
            "providerID": f"podwire://{node.name}",
        },
        "status": {
            "capacity": sizes,
            "allocatable": sizes,
            "addresses": [*addresses, {"type": "Hostname", "address": node.name}],
            "conditions": [_ready(False, "it has not been asked yet")],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": release,
                "osImage": "podwire sandbox",
                "containerRuntimeVersion": f"podwire://{podwire.__version__}",
                "kubeletVersion": f"v1.32.0+podwire-{podwire.__version__}",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": labels["kubernetes.io/arch"],
            },
        },
    }


def _cilium_node(node: Node) -> Object:
    own = [{"type": "InternalIP", "ip": address} for address in node.addresses]
    routers = [{"type": "CiliumInternalIP", "ip": address} for address in node.routers]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}},
        "spec": {"addresses": own + routers, "ipam": {"podCIDRs": list(node.pod_cidrs)}},
    }
