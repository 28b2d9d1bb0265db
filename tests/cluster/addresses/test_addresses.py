"""A node's own sockets under addresses that no object names, addresses that nobody has, and a pod that is
down: real packets in a sandbox, both routings, both families.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from podwire.abi.enums import EndpointFlags
from podwire.base.aio import eventually
from podwire.base.errors import PodwireError
from podwire.client.agent import AgentClient
from podwire.datapath.generations import open_maps
from podwire.net import namespaces
from podwire.net.stack import Stack
from podwire.sandbox import view
from podwire.testing.cluster import Cluster, Pod

pytestmark = pytest.mark.cluster

PORT = 7777
WITHIN = 20.0
# On another device of n1, and the broadcast address that goes with it; in no object of the API.
ODD = ("100.64.7.1", "100.64.8.1", "100.64.8.15", "203.0.113.4", "fd00:88::1", "fd00:89::1")
MAKE = (
    "ip addr add 100.64.7.1/32 dev lo",
    "ip -6 addr add fd00:88::1/128 dev lo",
    "ip link add second type veth peer name secondp",
    "ip link set second up",
    "ip link set secondp up",
    "ip addr add 100.64.8.1/28 dev second",
    "ip -6 addr add fd00:89::1/64 dev second nodad",
    "ip route add local 203.0.113.0/24 dev lo",
    "sysctl -qw net.ipv4.conf.all.route_localnet=1",
)
SPECIAL = ("127.0.0.1", "255.255.255.255", "224.0.0.1", "0.0.0.0", "ff02::1", "::1")


def policy(*entities: str) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "chosen"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "caller"}},
            "egress": [{"toEntities": list(entities)}],
        },
    }


def agent(lab: Cluster, node: str) -> AgentClient:
    places, _ = view.open_sandbox(lab.name)
    return AgentClient(places.node(node) / "podwire.sock", node=node, timeout=5)


async def table(lab: Cluster, name: str, holds: Callable[[list[dict[str, Any]]], bool], what: str) -> None:
    """Until the rows of a table of n1's agent are so, and the kernel's maps with them."""

    def reached() -> bool:
        try:
            return holds(agent(lab, "n1").get(f"/podwire/v1/tables/{name}"))
        except PodwireError:
            return False

    await eventually(reached, timeout=WITHIN, what=what)


@contextmanager
def listening(lab: Cluster) -> Iterator[list[socket.socket]]:
    """UDP sockets of n1 that take whatever comes to PORT, one for each family."""
    places, _ = view.open_sandbox(lab.name)
    with ExitStack() as stack:
        found = []
        for family, anything in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            each = namespaces.open_socket(str(places.netns("n1")), family, socket.SOCK_DGRAM)
            stack.enter_context(each)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind((anything, PORT))
            each.setblocking(False)
            found.append(each)
        yield found


def received(sockets: list[socket.socket]) -> set[str]:
    found = set()
    for each in sockets:
        while True:
            try:
                found.add(each.recv(100).decode())
            except BlockingIOError:
                break
    return found


def send(pod: Pod, address: str) -> None:
    """A datagram that says where it goes, as a frame: no stack of the pod's looks at its address."""
    places, _ = view.open_sandbox(pod.cluster.name)
    netns = next(one.netns for one in view.pods(places) if one.name == pod.name)
    ipv6 = ":" in address
    own = next(one for one in pod.addresses if (":" in one) == ipv6)
    with Stack(netns) as stack:
        device = stack.existing("eth0")
        (gateway,) = {mac for _, mac in stack.neighbours(device.ifindex)}
    head = IPv6(src=own, dst=address) if ipv6 else IP(src=own, dst=address)
    datagram = UDP(sport=40000, dport=PORT) / Raw(address.encode())
    frame = Ether(src=device.mac.hex(":"), dst=gateway.hex(":")) / head / datagram
    with namespaces.open_socket(netns, socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(bytes(frame))


async def dropped(lab: Cluster, address: str) -> str:
    """Why the datagram to `address` was dropped."""
    flow = await lab.flows(source="n1p1", destination=address, verdict="DROPPED").first(timeout=WITHIN)
    return flow.drop_reason


async def odd_addresses(lab: Cluster) -> None:
    for command in MAKE:
        result = await lab.on_node("n1", *command.split())
        assert result.code == 0, (command, result)
    wanted = {f"{one}/{128 if ':' in one else 32}" for one in ODD} - {"203.0.113.4/32"} | {"203.0.113.0/24"}
    await table(
        lab,
        "local_addresses",
        lambda rows: wanted <= {row["prefix"] for row in rows},
        "the addresses to be known",
    )
    known = {one.split("/")[0] for one in wanted} - {"203.0.113.0"}
    await eventually(
        lambda: all(in_kernel(lab, one) == EndpointFlags.HOST for one in known),
        timeout=WITHIN,
        what="rows in the kernel",
    )


def in_kernel(lab: Cluster, address: str) -> int | None:
    """The flags of the row of `address` in n1's podwire_endpoints; None if there is none."""
    places, _ = view.open_sandbox(lab.name)
    maps = open_maps(str(places.node_bpf("n1")))
    try:
        row = maps["podwire_endpoints"].get(address)
        return None if row is None else int(row.flags)
    finally:
        maps.close()


@pytest.mark.parametrize("setup", ["native.yaml", "tunnel.yaml"])
async def test_the_node_is_the_node_and_nobody_is_nobody(sandbox: Callable[..., Cluster], setup: str) -> None:
    async with sandbox(setup) as lab:
        await odd_addresses(lab)
        no_pod_is_given_the_nodes(lab)
        await the_node_is_not_the_world(lab)
        await what_nobody_has_ends_with_a_reason(lab)
        await a_pod_that_is_down_is_told_of(lab)


def no_pod_is_given_the_nodes(lab: Cluster) -> None:
    """Whatever asks for it: what is for the node would go to the pod."""
    places, _ = view.open_sandbox(lab.name)
    saved = next(one for one in view.pods(places) if one.name == "n1p1")
    for family, address in (("ipv4", "100.64.8.1"), ("ipv6", "fd00:89::1")):
        with pytest.raises(PodwireError, match=f"{address} is an address of this node itself"):
            agent(lab, "n1").attach(
                container_id="thief",
                netns=str(saved.netns),
                namespace="default",
                pod="n1p1",
                interface="eth9",
                **{family: address},
            )


async def the_node_is_not_the_world(lab: Cluster) -> None:
    caller = lab["n1p1"]
    with listening(lab) as sockets:
        await lab.apply(policy("world"))
        for address in ODD:
            send(caller, address)
        for address in ODD:
            assert await dropped(lab, address) == "POLICY_DENIED", address
        assert received(sockets) == set()
        await lab.apply(policy("host"))
        for address in ODD:
            send(caller, address)
        found: set[str] = set()

        def all_came() -> bool:
            found.update(received(sockets))
            return found == set(ODD)

        await eventually(all_came, timeout=WITHIN, what=f"datagrams to {ODD}")
    await lab.on_node("n1", "ip", "addr", "del", "100.64.7.1/32", "dev", "lo")
    await table(
        lab,
        "local_addresses",
        lambda rows: "100.64.7.1/32" not in {row["prefix"] for row in rows},
        "the address to be gone",
    )
    await eventually(lambda: in_kernel(lab, "100.64.7.1") is None, timeout=WITHIN, what="its row to go")
    await lab.delete(policy("host"))


async def what_nobody_has_ends_with_a_reason(lab: Cluster) -> None:
    """At the caller's node, or at the node whose prefix it is of; there is no third."""
    caller, other = lab["n1p1"], lab["n2p1"]
    unused = {}
    for pod, node in ((caller, "n1"), (other, "n2")):
        for own in pod.addresses:
            head, separator = own.rpartition(":" if ":" in own else ".")[:2]
            unused[f"{head}{separator}{'abc' if ':' in own else '200'}"] = node
    unused |= {"10.96.99.99": "n1", "fd00:10:96::9999": "n1"}
    lab.forget_flows()
    for address in unused:
        send(caller, address)
    for address, node in unused.items():
        flow = await lab.flows(source="n1p1", destination=address, verdict="DROPPED").first(timeout=WITHIN)
        assert (flow.drop_reason, flow.node.rpartition("/")[2]) == ("UNKNOWN_L3_TARGET_ADDRESS", node), (
            address
        )
    for address, node in unused.items():
        if not address.startswith(("10.96.", "fd00:10:96:")):
            way = await lab.on_node(node, "ip", "route", "get", address)
            assert way.code and "No route to host" in way.stderr, (address, way)


async def a_pod_that_is_down_is_told_of(lab: Cluster) -> None:
    pod = lab["n1p2"]
    places, _ = view.open_sandbox(lab.name)
    saved = next(one for one in view.pods(places) if one.name == pod.name)
    (device,) = (
        row for row in agent(lab, "n1").get("/podwire/v1/tables/endpoints") if row["pod"] == pod.name
    )

    async def lost(wanted: bool) -> None:
        await table(
            lab,
            "devices",
            lambda rows: {row["ifindex"]: row["lost"] for row in rows}[device["ifindex"]] is wanted,
            f"lost to be {wanted}",
        )
        await eventually(
            lambda: bool((in_kernel(lab, device["ipv4"]) or 0) & EndpointFlags.DOWN) is wanted,
            timeout=WITHIN,
            what="the kernel to know",
        )

    with Stack(saved.netns) as stack:
        stack.ensure_link("eth0", up=False)
        await lost(True)
        lab.forget_flows()
        for address in pod.addresses:
            send(lab["n1p1"], address)
        for _ in pod.addresses:
            flow = await lab.flows(source="n1p1", destination="n1p2", verdict="DROPPED").first(timeout=WITHIN)
            assert flow.drop_reason == "REDIRECT_FAILED"
        assert not await lab.flows(source="n1p1", destination="n1p2", verdict="FORWARDED", port=PORT).all()
        stack.ensure_link("eth0", up=True)
        await lost(False)


async def test_no_pod_reaches_the_node_by_an_address_of_nobody(sandbox: Callable[..., Cluster]) -> None:
    """Also not by loopback, where route_localnet lets it in (CVE-2020-8558), whatever policy says."""
    async with sandbox("native.yaml") as lab:
        await odd_addresses(lab)
        for allowed in (policy("world"), policy("all")):
            await lab.apply(allowed)
            lab.forget_flows()
            with listening(lab) as sockets:
                for address in SPECIAL:
                    send(lab["n1p1"], address)
                for address in SPECIAL:
                    assert await dropped(lab, address) == "UNKNOWN_L3_TARGET_ADDRESS", address
                assert received(sockets) == set()
