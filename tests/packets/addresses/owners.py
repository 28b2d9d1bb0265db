"""Who really has which address: a node made at random, with whoever is around it, and the model.

The node is a network namespace: what it answers to is asked of its kernel, by the follower that the agent
uses. Everything else comes to the tables as manifests. The model knows none of this: it says who an
address belongs to because it gave it to them.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from podwire.base.aio import Supervised, eventually
from podwire.net import messages
from podwire.net.messages import LOCAL, TABLE_LOCAL, Route, Veth
from podwire.net.stack import Stack
from podwire.sources.network import Network
from podwire.state.tables import Tables

SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")

MANIFESTS = """
kind: Pod
metadata: {name: here, labels: {app: here}}
status: {podIP: 10.0.1.7, podIPs: [{ip: 10.0.1.7}, {ip: "fd00:10:0:1::7"}]}
---
kind: Pod
metadata: {name: neighbour, labels: {app: neighbour}}
status: {podIP: 10.0.1.8, podIPs: [{ip: 10.0.1.8}, {ip: "fd00:10:0:1::8"}]}
---
kind: Pod
metadata: {name: there, labels: {app: there}}
spec: {nodeName: n2}
status: {podIP: 10.0.2.9, podIPs: [{ip: 10.0.2.9}, {ip: "fd00:10:0:2::9"}]}
---
kind: Service
metadata: {name: web}
spec:
  clusterIPs: [10.96.0.20, "fd00:10:96::20"]
  ports:
    - {name: tcp, port: 80, targetPort: 80, protocol: TCP}
    - {name: udp, port: 80, targetPort: 80, protocol: UDP}
---
kind: EndpointSlice
metadata: {name: web-4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.1.8], conditions: {ready: true}, nodeName: n1}]
ports: [{name: tcp, port: 80, protocol: TCP}, {name: udp, port: 80, protocol: UDP}]
---
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
endpoints: [{addresses: ["fd00:10:0:1::8"], conditions: {ready: true}, nodeName: n1}]
ports: [{name: tcp, port: 80, protocol: TCP}, {name: udp, port: 80, protocol: UDP}]
---
kind: EndpointSlice
metadata: {name: kubernetes, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [203.0.113.10], conditions: {ready: true}}]
ports: [{name: https, port: 6443, protocol: TCP}]
"""


@dataclass(frozen=True)
class Owner:
    """`who` has it: host, prefix (the node, by a locally routed prefix), a pod's name, service, nobody-here,
    nobody-there, nobody-served, remote-node, kube-apiserver, world, special."""

    address: str
    who: str

    @property
    def ipv6(self) -> bool:
        return ":" in self.address


# The world in its neighbourhood: just beside what somebody has. And who is always there.
FIXED = {
    "172.18.0.1": "host", "fd00:172::1": "host",  # in the Node object
    "10.0.1.254": "host",
    "172.18.0.2": "remote-node", "fd00:172::2": "remote-node", "10.0.2.254": "remote-node",
    "10.0.1.8": "neighbour", "fd00:10:0:1::8": "neighbour",
    "10.0.2.9": "there", "fd00:10:0:2::9": "there",
    "10.96.0.20": "service", "fd00:10:96::20": "service",
    "10.0.1.200": "nobody-here", "fd00:10:0:1::200": "nobody-here",
    "10.0.2.200": "nobody-there", "fd00:10:0:2::200": "nobody-there",
    "10.96.7.7": "nobody-served", "fd00:10:96::7777": "nobody-served",
    "203.0.113.10": "kube-apiserver",
    "172.18.0.77": "world", "fd00:172::77": "world",  # on the nodes' network, but in no Node object
    "8.8.8.8": "world", "2001:db8:99::1": "world", "169.254.169.254": "world",
}  # fmt: skip

SPECIAL = (
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.0.0.53", "127.255.255.255", "224.0.0.1", "239.1.2.3", "240.0.0.1",
    "255.255.255.255", "::", "::1", "ff02::1", "ff02::2", "ff05::1:3",
)  # fmt: skip


class Host:
    """Devices and addresses of the node, made at random in `netns`."""

    def __init__(self, netns: str, dice: random.Random) -> None:
        self.netns = netns
        self._dice = dice
        self.owners: dict[str, str] = dict(FIXED)
        with Stack(netns) as stack:
            self._make(stack)

    def _make(self, stack: Stack) -> None:
        stack.apply(messages.link_set(1, up=True))
        self._nic(stack, "eth0", 2)
        self._give(stack, "eth0", "172.18.0.1/16", "fd00:172::1/64")
        self._give(stack, "lo", "10.0.1.254/32")
        self._nic(stack, "eth1", 4)
        stack.ensure_bridge("br0")
        for device in ("eth0", "eth1", "br0", "lo"):
            for _ in range(self._dice.randint(1, 3)):
                self._give(stack, device, self._prefix(4, device), self._prefix(6, device))
        lo = stack.existing("lo").ifindex
        stack.apply(messages.route(Route("198.18.0.0/15", lo, type=LOCAL, table=TABLE_LOCAL)))
        self.owners["198.18.7.77"] = "prefix"  # rules may name a part of it
        for _ in range(2):
            self.owners[str(ip_network("198.18.0.0/15")[self._dice.randrange(1 << 17)])] = "prefix"

    def _nic(self, stack: Stack, name: str, last: int) -> None:
        stack.apply(
            messages.veth(
                Veth(name, bytes(5) + bytes([last])), Veth(f"{name}p", bytes(5) + bytes([last + 100]))
            )
        )
        stack.apply(messages.link_set(name=name, up=True), messages.link_set(name=f"{name}p", up=True))

    def _prefix(self, version: int, device: str) -> str:
        """Somewhere of its own, as long as the device would have it."""
        if version == 6:
            subnet, last = self._dice.randrange(1, 0x90), self._dice.randrange(2, 0xFFFF)
            return f"2001:db8:{subnet:x}::{last:x}/{128 if device == 'lo' else 64}"
        network = ip_network(f"192.168.{self._dice.randrange(256)}.{16 * self._dice.randrange(16)}/28")
        return f"{network[self._dice.randrange(1, 15)]}/{32 if device == 'lo' else 28}"

    def _give(self, stack: Stack, device: str, *prefixes: str) -> None:
        for prefix in prefixes:
            stack.apply(messages.address(stack.existing(device).ifindex, prefix))
            own, network = ip_address(prefix.split("/")[0]), ip_network(prefix, strict=False)
            self.owners[str(own)] = "host"
            if network.version == 4 and network.prefixlen < 31:
                self.owners[str(network.broadcast_address)] = "host"
                beside = str(network[1] if network[1] != own else network[2])
                self.owners.setdefault(beside, "world")  # somebody on that network

    def all(self) -> list[Owner]:
        return [Owner(address, who) for address, who in sorted(self.owners.items())]

    def tell(self, tables: Tables) -> None:
        """What the kernel says, by way of the agent's follower."""

        async def once() -> None:
            async with Supervised("test") as group:
                group.start("follow", Network(tables, namespace=self.netns).run())
                await eventually(lambda: len(tables.local_addresses), timeout=20, what="local addresses")

        asyncio.run(once())
