"""Agents are killed and come back while connections are made: none fails, and none is let through.

The datapath runs without its agent, and a new agent takes over what is in the kernel: it replaces
programs in place and writes only differences. CVE-2023-27595 (a peer's filters were gone while its
agent restarted) is the class of bug this is about.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from tests.cluster.restart.conftest import agent, kill_agent, load, populate, process

from podwire.base.aio import eventually
from podwire.testing.cluster import Cluster

pytestmark = pytest.mark.cluster
ROUNDS = 3


Drops = dict[tuple[str, str], float]


def drops(lab: Cluster) -> Drops:
    """(node, reason) → packets dropped so far."""
    found: Drops = {}
    for node in ("n1", "n2"):
        for one in agent(lab, node).get("/v1/metrics"):
            if one["name"] == "podwire_drop_count_total":
                key = node, one["labels"]["reason"]
                found[key] = found.get(key, 0) + one["value"]
    return found


def only_policy_drops(lab: Cluster, before: Drops) -> None:
    """No packet was lost since to anything but the policy. (Pods say things before they are attached.)"""
    more = {key: count - before.get(key, 0) for key, count in drops(lab).items()}
    other = {key: count for key, count in more.items() if count and key[1] != "Policy denied"}
    assert not other, other


async def under_load(lab: Cluster, server: str, service: str, work: Callable[[], Awaitable[None]]) -> None:
    """`work` while clients and strangers of both nodes connect to the pod and to its Service."""
    async with AsyncExitStack() as stack:
        outcomes = [
            await stack.enter_async_context(
                load(lab, server, 8080, ("client-n1", "stranger-n1", "stranger-n2"))
            ),
            await stack.enter_async_context(load(lab, service, 80, ("client-n2",))),
        ]
        await work()
    found = {pod: one for each in outcomes for pod, one in each.items()}
    for pod, one in found.items():
        assert one["opened"] > 100, (pod, one)
        if pod.startswith("client"):
            assert one["answered"] == one["opened"], f"{pod}: {one}"
        else:
            assert one["answered"] == 0, (pod, one)
            assert one["refused"] == 0, (pod, one)


async def service_address(lab: Cluster) -> str:
    async with lab.client() as client:
        services = await client.resource_of("v1", "Service")
        found = await client.get(services, "server", "default")
        return str(found["spec"]["clusterIP"])


@pytest.mark.parametrize(("setup", "family"), [("native.yaml", "."), ("tunnel.yaml", ":")])
async def test_killed_agents_drop_nothing_and_open_nothing(
    sandbox: Callable[..., Cluster], setup: str, family: str
) -> None:
    async with sandbox(setup) as lab:
        await populate(lab)
        before = drops(lab)
        server = next(one for one in lab["server"].addresses if family in one)

        async def kill() -> None:
            for _ in range(ROUNDS):
                for node in ("n1", "n2"):
                    await kill_agent(lab, node)

        await under_load(lab, server, await service_address(lab), kill)
        only_policy_drops(lab, before)


async def test_without_the_api_the_datapath_goes_on_and_catches_up(sandbox: Callable[..., Cluster]) -> None:
    async with sandbox("native.yaml") as lab:
        await populate(lab)
        before = drops(lab)
        server, service = lab["server"].address, await service_address(lab)
        control = process(lab, "control")
        os.kill(control, signal.SIGSTOP)
        try:
            # An agent that starts now knows its node from a copy, and leaves the maps as they are.
            await under_load(lab, server, service, lambda: kill_agent(lab, "n1", state="not all tables"))
        finally:
            os.kill(control, signal.SIGCONT)

        def caught_up() -> bool:
            return "maps equal to tables" in str(agent(lab, "n1").get("/v1/healthz"))

        await eventually(caught_up, timeout=30, what="the agent to catch up", interval=0.1)
        await lab.apply(
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": "clients-only"},
                "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": [{}]},
            }
        )
        assert not await lab["client-n1"].can_reach(lab["server"], port=8080)
        only_policy_drops(lab, before)
