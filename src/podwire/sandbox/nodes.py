"""Node objects: registered, kept alive by a Lease, Ready while their agent answers.

In the walk this is what a kubelet tells of its node; the pod CIDRs are the plan's. What is to be said is
compared with what the API has, each time anew: others write there too, and an earlier control process did.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from typing import Any

import podwire
from podwire.base.aio import boundary
from podwire.base.clock import Attention
from podwire.base.errors import PodwireError
from podwire.base.moments import now
from podwire.client.agent import AsyncAgentClient
from podwire.controllermanager.podstate import condition
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Node, Plan

log = logging.getLogger(__name__)
Object = dict[str, Any]
LEASE_SECONDS = 40
RENEW = 10.0  # s
NOT_READY = "node.kubernetes.io/not-ready"
# s an agent may be away before its node is not ready: the datapath goes on without it, so a restart
# must not take a node's pods out of their Services. As long as Kubernetes waits for a node.
GRACE = 40.0
QUICK, AGAIN, SLOW = 0.03, 0.2, 2.0  # s between questions to an agent: that begins, is away, is well
ANSWER = 5.0  # s an agent may take to answer


def register(cluster: Cluster, plan: Plan, node: Node) -> None:
    """Node and CiliumNode, whole, but not Ready yet; those of an earlier control process stay as they are."""
    if cluster.find("nodes", "", node.name) is None:
        cluster.ensure("nodes", "", _node(plan, node))
    cluster.ensure("ciliumnodes.cilium.io", "", _cilium_node(node))
    _renew(cluster, node)


async def keep(cluster: Cluster, places: Places, node: Node, ready: asyncio.Event) -> None:
    """Renew the lease and report whether the agent is well, for ever. `ready` is set while it is."""
    keeping = _Keeping(cluster, places, node, ready)
    while True:
        wait = SLOW
        with boundary(f"reporting of node {node.name}"):
            wait = await keeping.look()
        await asyncio.sleep(wait)


class _Keeping:
    """What is known of one node between two looks at it."""

    def __init__(self, cluster: Cluster, places: Places, node: Node, ready: asyncio.Event) -> None:
        self.cluster, self.node, self.ready = cluster, node, ready
        self.agent = AsyncAgentClient(places.node(node.name) / "podwire.sock", node=node.name, timeout=ANSWER)
        # Between two looks there is an answer that may take its time, and a wait. What is longer is a time
        # in which this process did not run, and the agent's silence in it says nothing.
        self.attention = Attention(ANSWER + SLOW)
        self.renewed = 0.0
        # A node that an earlier control process left Ready has the same grace as one that was asked.
        self.well_at = 0.0 if cluster.says_ready(node.name) else -GRACE

    async def look(self) -> float:
        """Once: ask, and report what the API does not say yet; seconds until the next look."""
        loop = asyncio.get_running_loop()
        if loop.time() - self.renewed >= RENEW:
            _renew(self.cluster, self.node)
            self.renewed = loop.time()
        self.attention.look(loop.time())
        well, why = await _ask(self.agent)
        moment = self.attention.look(loop.time())
        if well:
            self.well_at = moment
        elif moment - self.well_at < GRACE:
            return AGAIN
        _report(self.cluster, self.node, well, why)
        (self.ready.set if well else self.ready.clear)()
        return SLOW if well else AGAIN if self.well_at >= 0 else QUICK


async def _ask(agent: AsyncAgentClient) -> tuple[bool, str]:
    try:
        answer = await agent.get("/v1/healthz", brief="true")
    except PodwireError as error:
        return False, str(error)
    state = (answer.get("cilium") or {}).get("state", "")
    return state != "Failure", str((answer.get("cilium") or {}).get("msg", ""))


def _report(cluster: Cluster, node: Node, well: bool, why: str) -> None:
    found = cluster.find("nodes", "", node.name)
    if found is None:
        return
    wanted = _ready(well, why)
    before = condition(found, "Ready") or {}
    if any(before.get(key) != wanted[key] for key in ("status", "reason", "message")):
        if before.get("status") == wanted["status"]:
            wanted["lastTransitionTime"] = before["lastTransitionTime"]

        def edit(old: Object) -> Object:
            others = [one for one in old["status"].get("conditions") or [] if one["type"] != "Ready"]
            old["status"]["conditions"] = [*others, wanted]
            return old

        cluster.edit_status("nodes", "", node.name, edit)
    taints = found.get("spec", {}).get("taints") or []
    if well == any(one["key"] == NOT_READY for one in taints):
        cluster.objects.change(cluster.objects.kind("nodes"), "", node.name, lambda old: _tainted(old, well))


def _tainted(node: Object, well: bool) -> Object:
    spec = node.setdefault("spec", {})
    others = [one for one in spec.get("taints") or [] if one["key"] != NOT_READY]
    spec["taints"] = others + ([] if well else [{"key": NOT_READY, "effect": "NoSchedule"}])
    if not spec["taints"]:
        del spec["taints"]
    return node


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
    moment = now(micro=True)
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
