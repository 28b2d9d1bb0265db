"""Two nodes with two pods each, in namespaces, on the shipped programs: what real packets run through."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from tests.patience import within

from podwire.abi.enums import DropReason, EventKind
from podwire.base.addresses import pack
from podwire.bpf.link import Hook, attach_tc
from podwire.datapath import objects
from podwire.model.identity import MOST_CLUSTERS, of_cluster
from podwire.net import namespaces
from podwire.net.stack import Stack
from podwire.testing.world import Pod, World

UNDERLAY_MTU = 1500
TUNNEL_PORT = 4789
TUNNEL_MTU = 1430  # VXLAN over IPv4 takes 50; 20 more, so that what fits is seen to be decided here


_labs = count(1)  # several may be there at once


def ip(namespace: str, *commands: str) -> None:
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(commands), text=True, check=True)


class Node:
    """A namespace with an underlay device, a tunnel device, and pods on the datapath."""

    def __init__(self, number: int, lab: int, tunnel: bool, stack: ExitStack) -> None:
        self.number, self.tunnel = number, tunnel
        self.name = f"pwt{os.getpid()}l{lab}n{number}"
        self.pods: dict[int, tuple[str, Pod]] = {}
        self._stack = stack
        namespaces.create(self.name)
        stack.callback(namespaces.delete, self.name)
        namespaces.run(self.name, self._forward)

    @staticmethod
    def _forward() -> None:
        # A thread of the namespace sees its /proc/sys/net.
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", name).write_text("1")
        for name in ("all", "default"):
            Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
            Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")

    def start(self, other: Node) -> None:
        """Devices, routes to the other node's pods, programs. The underlay pair is there already."""
        mine, theirs = self.number, other.number
        ip(
            self.name,
            "link set lo up",
            "link set u0 up",
            f"addr add 192.168.7.{mine}/24 dev u0",
            f"addr add fd00:7::{mine}/64 dev u0 nodad",
            f"link add pwvx type vxlan external dstport {TUNNEL_PORT} noudpcsum udp6zerocsumrx",
            "link set pwvx addrgenmode none",
            f"link set pwvx mtu {TUNNEL_MTU} arp off up",
        )
        far = "dev pwvx" if self.tunnel else f"via 192.168.7.{theirs}"
        far6 = "dev pwvx" if self.tunnel else f"via fd00:7::{theirs}"
        ip(self.name, f"route add 10.0.{theirs}.0/24 {far}", f"route add fd00:10:{theirs}::/64 {far6}")
        with Stack(self.name) as stack:
            devices = {name: stack.existing(name).ifindex for name in ("u0", "pwvx")}
        constants: dict[str, int | bytes] = {
            "config_node_ipv4": pack(f"192.168.7.{mine}"),
            "config_node_ipv6": pack(f"fd00:7::{mine}"),
            "config_tunnel_device": devices["pwvx"] if self.tunnel else 0,
            "config_tunnel_mtu": TUNNEL_MTU,
            "config_tunnel_port": TUNNEL_PORT,
            "config_tunnel_token": 0x5EED0000 + self.number if self.tunnel else 0,
            "config_network_device": devices["u0"],
        }
        self.world = self._stack.enter_context(World(Path(objects.directory()), constants, pods=0))
        for address in (f"192.168.7.{mine}", f"fd00:7::{mine}"):
            self.world.node(address)
        for address in (f"192.168.7.{theirs}", f"fd00:7::{theirs}"):
            self.world.known(address, 6)
        for device, kind in (("u0", "network"), ("pwvx", "overlay")):
            self._attach(devices[device], f"from_{kind}", f"to_{kind}")

    def _attach(self, ifindex: int, ingress: str, egress: str) -> None:
        for program, hook in ((ingress, Hook.TC_INGRESS), (egress, Hook.TC_EGRESS)):
            link = namespaces.run(
                self.name, attach_tc, self.world.programs[f"podwire_{program}"], ifindex, hook
            )
            self._stack.callback(link.detach)

    def add(self, number: int, identity: int) -> Pod:
        """Pod 10.0.<node>.<number>, with neighbours that never change, as the agent makes them."""
        namespace = f"{self.name}p{number}"
        namespaces.create(namespace)
        self._stack.callback(namespaces.delete, namespace)
        ipv4, ipv6 = f"10.0.{self.number}.{number}", f"fd00:10:{self.number}::{number:x}"
        mac, host_mac = (
            f"02:0b:00:00:{self.number:02x}:{number:02x}",
            f"02:ee:00:00:{self.number:02x}:{number:02x}",
        )
        ip(
            self.name,
            f"link add v{number} address {host_mac} type veth peer name eth0 address {mac} netns {namespace}",
            f"link set v{number} up",
            f"route add {ipv4}/32 dev v{number}",
            f"route add {ipv6}/128 dev v{number}",
            f"neigh add {ipv4} lladdr {mac} dev v{number}",
            f"neigh add {ipv6} lladdr {mac} dev v{number}",
        )
        ip(
            namespace,
            "link set lo up",
            "link set eth0 up",
            f"addr add {ipv4}/32 dev eth0",
            f"addr add {ipv6}/128 dev eth0 nodad",
            "route add 169.254.1.1 dev eth0",
            "route add default via 169.254.1.1 dev eth0",
            f"neigh add 169.254.1.1 lladdr {host_mac} dev eth0",
            f"neigh add fe80::1 lladdr {host_mac} dev eth0",
            "route add default via fe80::1 dev eth0",
        )
        with Stack(self.name) as stack:
            device = stack.existing(f"v{number}").ifindex
        raw = [bytes.fromhex(one.replace(":", "")) for one in (mac, host_mac)]
        pod = Pod(f"p{number}", number, device, identity, raw[0], raw[1], ipv4, ipv6)
        self.world.write(pod)
        self._attach(device, "from_pod", "to_pod")
        self.pods[number] = namespace, pod
        return pod

    def learn(self, other: Node) -> None:
        """The other node's pods into the ipcache."""
        for _, pod in other.pods.values():
            for address in (pod.ipv4, pod.ipv6):
                self.world.known(address, pod.identity, f"192.168.7.{other.number}" if self.tunnel else "")


class Lab:
    def __init__(self, tunnel: bool, stack: ExitStack) -> None:
        self.tunnel = tunnel
        lab = next(_labs)
        self.nodes = {number: Node(number, lab, tunnel, stack) for number in (1, 2)}
        first, second = self.nodes[1], self.nodes[2]
        ip(
            first.name,
            f"link add u0 mtu {UNDERLAY_MTU} type veth peer name u0 mtu {UNDERLAY_MTU} netns {second.name}",
        )
        first.start(second)
        second.start(first)
        for node in self.nodes.values():
            for number in (1, 2):
                # The first node is of another cluster: all bits of an identity go over the wire.
                numbers = of_cluster(MOST_CLUSTERS if node is first else 0)
                node.add(number, numbers[1000 * node.number + number])
        first.learn(second)
        second.learn(first)

    def address(self, who: tuple[int, int], ipv6: bool) -> str:
        return self.nodes[who[0]].pods[who[1]][1].address(ipv6)

    def namespace(self, who: tuple[int, int]) -> str:
        """(node, pod); pod 0 is the node itself."""
        node = self.nodes[who[0]]
        return node.pods[who[1]][0] if who[1] else node.name

    def socket(self, who: tuple[int, int], ipv6: bool, kind: int = socket.SOCK_STREAM) -> socket.socket:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        made = namespaces.open_socket(self.namespace(who), family, kind)
        made.settimeout(within(2))
        return made

    def talks(self, source: tuple[int, int], to: tuple[int, int], ipv6: bool, size: int = 10) -> bool:
        """Whether `size` bytes go there over TCP and as many come back."""
        with self.socket(to, ipv6) as server, self.socket(source, ipv6) as client:
            server.bind((self.address(to, ipv6) if to[1] else "::" if ipv6 else "0.0.0.0", 0))
            server.listen()
            client.settimeout(within(0.4))
            target = self.address(to, ipv6) if to[1] else f"fd00:7::{to[0]}" if ipv6 else f"192.168.7.{to[0]}"
            try:
                client.connect((target, server.getsockname()[1]))
            except OSError:
                return False
            client.settimeout(within(2))
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(within(2))
                for one, other in ((client, accepted), (accepted, client)):
                    # Beside the reader: what no buffer holds is sent when it is read, and how much a
                    # buffer holds is the kernel's to decide as it goes.
                    sender = threading.Thread(target=one.sendall, args=(b"x" * size,), name="send")
                    sender.start()
                    got = 0
                    while got < size:
                        got += len(other.recv(65536))
                    sender.join()
            return True

    def ping(self, source: tuple[int, int], address: str, size: int = 56) -> subprocess.CompletedProcess[str]:
        patience, bytes_ = str(within(1)), str(size)
        command = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", patience, "-s", bytes_, "-M", "do", address]
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.namespace(source)}", *command],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def drops(self) -> list[tuple[int, DropReason]]:
        seen = []
        for number, node in self.nodes.items():
            events = node.world.events()
            seen += [
                (number, DropReason(int(one["reason"]))) for one in events[events["kind"] == EventKind.DROP]
            ]
        return seen
