"""Every lab comes up and does what its README says; written as users of the plugin write tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from podwire.testing.cluster import Cluster

pytestmark = pytest.mark.cluster
Sandbox = Callable[..., Cluster]
LABS = Path(__file__).resolve().parents[3] / "labs"

DENY_ALL = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""
FROM_N1P1 = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: from-n1p1}
spec:
  endpointSelector: {matchLabels: {pod: n2p1}}
  ingress:
    - fromEndpoints: [{matchLabels: {pod: n1p1}}]
      toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""


def test_every_lab_is_tested_here() -> None:
    assert {one.name for one in LABS.iterdir() if (one / "lab.yaml").exists()} == {
        "first-light",
        "two-nodes",
        "three-nodes",
        "dual-stack",
        "vxlan",
    }


async def everybody_reaches_everybody(lab: Cluster) -> None:
    matrix = await lab.connectivity()
    assert all(matrix[pair] for pair in matrix.outcomes), f"\n{matrix}"


@pytest.mark.parametrize("name", ["two-nodes", "three-nodes", "vxlan"])
async def test_pods_reach_each_other_and_the_service(sandbox: Sandbox, name: str) -> None:
    async with sandbox(name) as lab:
        await everybody_reaches_everybody(lab)
        answer = await lab["n1p1"].exec("curl", "-s", "-m", "5", "http://web.default.svc.cluster.local/who")
        assert answer.code == 0, answer
        told = json.loads(answer.stdout)
        assert told["pod"] in {"n1p1", "n1p2", "n2p1", "n2p2", "n3p1", "n3p2"}
        assert told["path"] == "/who"


async def test_both_families_work_side_by_side(sandbox: Sandbox) -> None:
    async with sandbox("dual-stack") as lab:
        for family in (4, 6):
            for target in ("n1p2", "n2p1"):
                assert await lab["n1p1"].can_reach(lab[target], port=80, family=family), (family, target)
                assert await lab["n1p1"].can_reach(lab[target], 80, "udp", family=family), (family, target)
        for option in ("-4", "-6"):
            answer = await lab["n1p1"].exec("curl", "-s", option, "-m", "5", "http://web/")
            assert answer.code == 0, (option, answer)


async def test_a_denied_flow_says_why(sandbox: Sandbox) -> None:
    async with sandbox("two-nodes") as lab:
        await lab.apply(DENY_ALL)
        assert not await lab["n1p1"].can_reach(lab["n2p1"], port=80)
        flow = await lab.flows(source="n1p1", destination="n2p1", verdict="DROPPED").first()
        assert flow.drop_reason == "POLICY_DENIED"
        assert flow.because == "default deny (default/deny-all)"

        await lab.apply(FROM_N1P1)
        outcome = await lab["n1p1"].reach(lab["n2p1"], 80)
        assert outcome.reached
        assert outcome.because == "default/from-n1p1 ingress[0]"
        assert not await lab["n1p2"].can_reach(lab["n2p1"], 80)
        assert not await lab["n1p1"].can_reach(lab["n2p1"], 8080)

        await lab.delete(DENY_ALL, FROM_N1P1)
        await everybody_reaches_everybody(lab)


async def test_names_in_the_cluster_resolve(sandbox: Sandbox) -> None:
    async with sandbox("two-nodes") as lab:
        pod = lab["n1p1"]
        dashed = lab["n2p1"].address.replace(".", "-")
        for name in (
            "web",
            "web.default",
            "web.default.svc.cluster.local",
            "kubernetes",
            f"{dashed}.default.pod.cluster.local",
        ):
            assert (await pod.exec("getent", "hosts", name)).code == 0, name
        for name in ("nothing", "web.prod", "example.com"):
            assert (await pod.exec("getent", "hosts", name, timeout=5)).code == 2, name


async def test_first_light_allows_what_its_policy_says(sandbox: Sandbox) -> None:
    async with sandbox("first-light") as lab:
        frontend, stranger, backend = lab["prod/frontend"], lab["prod/unauthorized"], lab["prod/backend-1"]
        answer = await frontend.exec("curl", "-s", "-m", "5", "http://backend:8080/hello")
        told = json.loads(answer.stdout)
        assert told["pod"] in ("backend-1", "backend-2")
        assert told["client"].startswith(frontend.address)
        assert not await stranger.can_reach(backend, 8080)
        outcome = await backend.reach("203.0.113.53", 53, "udp")
        assert (outcome.result, outcome.because) == ("ok", "prod/backend egress[1]")
        assert not await backend.can_reach("203.0.113.53", 80)
