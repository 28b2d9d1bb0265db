"""A node gets another address while its pods talk: its agent follows its object, with no restart."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest

from podwire.base.aio import eventually
from podwire.base.errors import PodwireError
from podwire.client.agent import AgentClient
from podwire.kube.resources import CILIUM_NODES, NODES
from podwire.sandbox import view
from podwire.testing.cluster import Cluster

pytestmark = pytest.mark.cluster
WITHIN = 30.0


def agent(lab: Cluster, node: str) -> AgentClient:
    places, _ = view.open_sandbox(lab.name)
    return AgentClient(places.node(node) / "podwire.sock", node=node, timeout=5)


def node_says(lab: Cluster, node: str) -> str:
    """What is not as its object says; empty = nothing."""
    components = agent(lab, node).get("/v1/healthz")["podwire"]["components"]
    return str(components.get("node", {}).get("msg", ""))


async def on(lab: Cluster, *command: str) -> str:
    result = await lab.on_node("n2", *command)
    assert result.code == 0, (command, result)
    return result.stdout


async def until(lab: Cluster, holds: Callable[[], Any], what: str) -> None:
    def reached() -> bool:
        try:
            return bool(holds())
        except PodwireError:
            return False

    await eventually(reached, timeout=WITHIN, what=what)


async def give(lab: Cluster, addresses: list[str]) -> None:
    async with lab.client() as client:
        status = {"addresses": [{"type": "InternalIP", "address": one} for one in addresses]}
        await client.patch(NODES, "n2", {"status": status}, subresource="status")


async def device_of(lab: Cluster, address: str) -> tuple[str, int]:
    """(device, prefix length) that has it."""
    for line in (await on(lab, "ip", "-o", "addr", "show")).splitlines():
        _, device, _, prefix, *_ = line.split()
        found = ipaddress.ip_interface(prefix)
        if str(found.ip) == address:
            return device, found.network.prefixlen
    raise AssertionError(f"no device has {address}")


@pytest.mark.parametrize("setup", ["native.yaml", "tunnel.yaml"])
async def test_a_node_follows_its_object(sandbox: Callable[..., Cluster], setup: str) -> None:
    async with sandbox(setup) as lab:
        assert await lab["n1p1"].can_reach(lab["n2p1"], timeout=10)
        rows = agent(lab, "n1").get("/podwire/v1/tables/nodes")
        old = next(row["addresses"] for row in rows if row["name"] == "n2")
        new = [str(ipaddress.ip_address(one) + 100) for one in old]
        await give(lab, new)
        await until(lab, lambda: new[0] in node_says(lab, "n2"), "the address on no device to be named")
        # Else the second address of a network goes with the first; systemd sets it, too.
        await on(lab, "sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
        for before, after in zip(old, new, strict=True):
            device, length = await device_of(lab, before)
            words = ["nodad"] if ":" in after else []
            await on(lab, "ip", "addr", "add", f"{after}/{length}", "dev", device, *words)
            await on(lab, "ip", "addr", "del", f"{before}/{length}", "dev", device)
        await until(lab, lambda: node_says(lab, "n2") == "", "the node to be what its object says")
        await until(
            lab,
            lambda: (
                {one["prefix"] for one in agent(lab, "n1").get("/podwire/v1/bpf/ipcache")}
                >= {f"{one}/{128 if ':' in one else 32}" for one in new}
            ),
            "the other node to know",
        )
        for family in (4, 6):
            assert await lab["n1p1"].can_reach(lab["n2p1"], family=family, timeout=10), family
            assert await lab["n2p1"].can_reach(lab["n1p1"], family=family, timeout=10), family
        async with lab.client() as client:
            spec = (await client.get(CILIUM_NODES, "n2"))["spec"]
        assert {one["ip"] for one in spec["addresses"] if one["type"] == "InternalIP"} == set(new)
