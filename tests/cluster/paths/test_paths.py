"""Every path a packet can take: both families, both protocols, same node and other node, socket and
packet, native routing and tunnels, three nodes; and the right size on each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podwire.sandbox import view
from podwire.testing.cluster import Cluster, Pod, run

pytestmark = pytest.mark.cluster

PROBE = Path(__file__).parent / "probe.py"
FAMILIES = (".", ":")
PROTOCOLS = ("tcp", "udp")
IP_AND_ICMP = {".": 28, ":": 48}
UNDERLAY_MTU = 1500
Found = dict[str, Any]


async def in_pod(pod: Pod, *questions: str) -> Found:
    """Asked by a process of the pod: Services are translated when it connects."""
    result = await pod.exec(sys.executable, "-I", str(PROBE), *questions)
    assert result.stdout, result.stderr
    return dict(json.loads(result.stdout))


async def per_packet(pod: Pod, *questions: str) -> Found:
    """Asked in the pod's network from outside of its cgroup: nothing is translated but packets."""
    places, _ = view.open_sandbox(pod.cluster.name)
    netns = next(one.netns for one in view.pods(places) if one.name == pod.name)
    words = ["nsenter", f"--net={netns}", sys.executable, "-I", str(PROBE), *questions]
    result = await run(words, None, 60)
    assert result.stdout, result.stderr
    return dict(json.loads(result.stdout))


def answered(found: Found, protocol: str, pod: str) -> bool:
    """HTTP says who answered; UDP is echoed."""
    return (pod if protocol == "tcp" else "hello") in str(found.get("answer"))


def address(pod: Pod, family: str) -> str:
    return next(one for one in pod.addresses if family in one)


async def services(lab: Cluster) -> dict[str, list[str]]:
    async with lab.client() as client:
        kind = await client.resource_of("v1", "Service")
        found = await client.list(kind, "default")
        return {one["metadata"]["name"]: one["spec"]["clusterIPs"] for one in found}


async def ping(pod: Pod, target: str, size: int) -> str:
    """The report of one ping of `size` bytes of IP that nobody may cut."""
    payload = size - IP_AND_ICMP[":" if ":" in target else "."]
    result = await pod.exec("ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(payload), target)
    return result.stdout + result.stderr


@pytest.mark.parametrize("setup", ["native.yaml", "tunnel.yaml"])
async def test_every_path_works(sandbox: Callable[..., Cluster], setup: str) -> None:
    async with sandbox(setup) as lab:
        pods = {name: lab[name] for name in ("n1p1", "n1p2", "n2p1", "n3p1")}
        await pods_reach_pods(pods)
        await pods_reach_services(lab, pods["n1p1"])
        await pods_reach_the_api(lab, pods)
        await nodes_and_pods_reach_each_other(lab, pods)
        await sizes_are_right(lab, pods, tunnel=setup == "tunnel.yaml")


async def pods_reach_pods(pods: dict[str, Pod]) -> None:
    for source, target in (("n1p1", "n1p2"), ("n1p1", "n2p1"), ("n2p1", "n3p1"), ("n3p1", "n1p2")):
        there = {family: address(pods[target], family) for family in FAMILIES}
        found = await in_pod(
            pods[source],
            *(f"{protocol}/{one}/80" for protocol in PROTOCOLS for one in there.values()),
        )
        for family, one in there.items():
            for protocol in PROTOCOLS:
                each = found[f"{protocol}/{one}/80"]
                assert answered(each, protocol, target), (source, target, protocol, each)
                assert each["own"] == address(pods[source], family)


async def pods_reach_services(lab: Cluster, client: Pod) -> None:
    """The answer comes from the backend, and the client sees the Service as its peer."""
    known = await services(lab)
    backends = {"itself": "n1p1", "same-node": "n1p2", "other-node": "n3p1"}
    served = [
        (protocol, there, backend)
        for name, backend in backends.items()
        for there in known[name]
        for protocol in PROTOCOLS
    ]
    unserved = [f"tcp/{there}/8000" for there in known["nobody"]]
    for ask in (in_pod, per_packet):
        found = await ask(client, *(f"{protocol}/{there}/8000" for protocol, there, _ in served), *unserved)
        for protocol, there, backend in served:
            each = found[f"{protocol}/{there}/8000"]
            assert answered(each, protocol, backend), (there, backend, ask.__name__, each)
            assert each["peer"] == there
        for question in unserved:
            assert "error" in found[question], (question, ask.__name__)
    assert (await lab.flows(drop_reason="SERVICE_BACKEND_NOT_FOUND").first()) is not None


async def pods_reach_the_api(lab: Cluster, pods: dict[str, Pod]) -> None:
    """By the Service every cluster has; without a certificate they learn nothing there."""
    for name in ("n1p1", "n2p1"):
        command = ["curl", "-sk", "-m", "3", "-w", "%{http_code}", "https://kubernetes.default/api/v1/pods"]
        result = await pods[name].exec(*command)
        assert result.stdout.endswith("401"), (name, result)


async def nodes_and_pods_reach_each_other(lab: Cluster, pods: dict[str, Pod]) -> None:
    for family in FAMILIES:
        for node, target in (("n1", "n1p1"), ("n1", "n2p1"), ("n3", "n1p2")):
            there = address(pods[target], family)
            result = await lab.on_node(node, sys.executable, "-I", str(PROBE), f"tcp/{there}/80")
            assert target in result.stdout, (node, target, result)
        router = "10.0.1.254" if family == "." else "fd00:10:0:1:ffff:ffff:ffff:ffff"
        for pod in ("n1p1", "n2p1"):
            assert " 0% packet loss" in await ping(pods[pod], router, 100), (pod, router)


async def sizes_are_right(lab: Cluster, pods: dict[str, Pod], *, tunnel: bool) -> None:
    source, near, far = pods["n1p1"], pods["n1p2"], pods["n3p1"]
    routes = await source.exec("ip", "route")
    found = [int(line.split("mtu ")[1].split()[0]) for line in routes.stdout.splitlines() if "mtu" in line]
    limit = found[0] if tunnel else UNDERLAY_MTU
    assert not tunnel or UNDERLAY_MTU - 70 <= limit <= UNDERLAY_MTU - 50
    for family in FAMILIES:
        for target in (near, far):
            there = address(target, family)
            assert " 0% packet loss" in await ping(source, there, limit), (there, limit)
            assert "too long" in await ping(source, there, limit + 1)
    if not tunnel:
        await a_narrow_way_is_told(lab, source, far)


async def a_narrow_way_is_told(lab: Cluster, source: Pod, far: Pod) -> None:
    """The node answers for the link behind it, and its answer reaches the pod although policy is asked."""
    await lab.apply(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "nobody-in"},
            "spec": {"endpointSelector": {"matchLabels": {"pod": "n1p1"}}, "ingress": [{}]},
        }
    )
    narrow = 1400
    result = await lab.on_node("n1", "ip", "link", "set", "eth0", "mtu", str(narrow))
    assert result.code == 0, result.stderr
    for family in FAMILIES:
        report = await ping(source, address(far, family), UNDERLAY_MTU)
        assert str(narrow) in report, report
        assert " 0% packet loss" in await ping(source, address(far, family), narrow)
