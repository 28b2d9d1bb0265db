"""Real packets: two nodes with two pods each, in namespaces, over both routings and both families."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.patience import within

from podwire.abi.enums import Direction, DropReason, EndpointFlags, EventKind
from podwire.base.addresses import pack
from podwire.bpf.link import Hook, attach_tc
from podwire.datapath import objects
from podwire.net import namespaces
from podwire.net.stack import Stack
from podwire.testing.world import Pod, World

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[3]
UNDERLAY_MTU = 1500
TUNNEL_MTU = 1430  # VXLAN over IPv4 takes 50; 20 more, so that what fits is seen to be decided here


def ip(namespace: str, *commands: str) -> None:
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(commands), text=True, check=True)


class Node:
    """A namespace with an underlay device, a tunnel device, and pods on the datapath."""

    def __init__(self, number: int, tunnel: bool, stack: ExitStack) -> None:
        self.number, self.tunnel = number, tunnel
        self.name = f"pwt{os.getpid()}n{number}"
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
            "link add pwvx type vxlan external dstport 4789 noudpcsum udp6zerocsumrx",
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
        self.nodes = {number: Node(number, tunnel, stack) for number in (1, 2)}
        first, second = self.nodes[1], self.nodes[2]
        ip(
            first.name,
            f"link add u0 mtu {UNDERLAY_MTU} type veth peer name u0 mtu {UNDERLAY_MTU} netns {second.name}",
        )
        first.start(second)
        second.start(first)
        for node in self.nodes.values():
            for number in (1, 2):
                node.add(number, 1000 * node.number + number)
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
        command = [
            "ping",
            "-n",
            "-c",
            "2",
            "-i",
            "0.2",
            "-W",
            str(within(1)),
            "-s",
            str(size),
            "-M",
            "do",
            address,
        ]
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


@pytest.fixture(scope="module", params=[False, True], ids=["native", "tunnel"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(request.param, stack)


@pytest.fixture(params=[False, True], ids=["ipv4", "ipv6"])
def ipv6(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


PATHS = {
    "pod to pod": ((1, 1), (1, 2)),
    "to another node": ((1, 1), (2, 1)),
    "pod to its node": ((1, 1), (1, 0)),
    "pod to another node's host": ((1, 1), (2, 0)),
    "node to its pod": ((1, 0), (1, 1)),
    "node to another node's pod": ((1, 0), (2, 1)),
}


@pytest.mark.parametrize("path", PATHS)
def test_tcp_with_little_and_much(lab: Lab, ipv6: bool, path: str) -> None:
    lab.drops()
    for size in (10, 300_000):
        assert lab.talks(*PATHS[path], ipv6, size), lab.drops()
    assert not lab.drops()


@pytest.mark.parametrize("path", ["pod to pod", "to another node"])
def test_udp_in_fragments(lab: Lab, ipv6: bool, path: str) -> None:
    source, to = PATHS[path]
    lab.drops()
    with (
        lab.socket(to, ipv6, socket.SOCK_DGRAM) as server,
        lab.socket(source, ipv6, socket.SOCK_DGRAM) as client,
    ):
        server.bind((lab.address(to, ipv6), 0))
        for size in (1, 5000):
            client.sendto(b"x" * size, (lab.address(to, ipv6), server.getsockname()[1]))
            data, peer = server.recvfrom(9000)
            assert len(data) == size, lab.drops()
            server.sendto(data, peer)
            assert len(client.recv(9000)) == size


@pytest.mark.parametrize("path", ["pod to pod", "to another node"])
def test_ping(lab: Lab, ipv6: bool, path: str) -> None:
    source, to = PATHS[path]
    done = lab.ping(source, lab.address(to, ipv6))
    assert done.returncode == 0, (done.stdout, lab.drops())


def test_the_largest_packet_fits_and_a_larger_one_is_answered(lab: Lab, ipv6: bool) -> None:
    limit = TUNNEL_MTU if lab.tunnel else UNDERLAY_MTU
    largest = limit - (48 if ipv6 else 28)
    there = lab.address((2, 2), ipv6)
    fits = lab.ping((1, 2), there, largest)
    assert fits.returncode == 0, (fits.stdout, lab.drops())
    if not lab.tunnel:
        return  # the pod's own device has the same limit
    larger = lab.ping((1, 2), there, largest + 1)
    assert larger.returncode != 0
    assert f"mtu={limit}" in larger.stdout.replace(" ", "").lower() or f"mtu{limit}" in larger.stdout.replace(
        " ", ""
    )
    # What the kernel has learned now shapes what it sends.
    assert lab.talks((1, 2), (2, 2), ipv6, 100_000), lab.drops()


def test_policy_by_the_identity_that_came_with_the_packet(lab: Lab, ipv6: bool) -> None:
    import msgspec

    node = lab.nodes[2]
    _, pod = node.pods[1]
    node.world.write(msgspec.structs.replace(pod, policy=9, flags=EndpointFlags.ENFORCE_INGRESS))
    node.world.peer(9, 1001, Direction.INGRESS, 4)
    node.world.rule(9, Direction.INGRESS, peer_class=4, protocol=6, rule=5)
    try:
        lab.drops()
        assert lab.talks((1, 1), (2, 1), ipv6), lab.drops()
        assert not lab.talks((1, 2), (2, 1), ipv6)
        assert (2, DropReason.POLICY_DENIED) in lab.drops()
        assert lab.talks((2, 0), (2, 1), ipv6), "the node reaches its pod"
    finally:
        node.world.write(pod)


def test_a_service_and_a_pod_that_serves_itself(lab: Lab, ipv6: bool) -> None:
    service = "fd00:96::7" if ipv6 else "10.96.0.7"
    node = lab.nodes[1]
    for who in ((1, 2), (2, 2), (1, 1)):
        with lab.socket(who, ipv6) as server, lab.socket((1, 1), ipv6) as client:
            server.bind((lab.address(who, ipv6), 0))
            server.listen()
            node.world.service(
                service, 80, 6, {who[0] * 10 + who[1]: (lab.address(who, ipv6), server.getsockname()[1])}
            )
            lab.drops()
            try:
                client.connect((service, 80))
            except OSError as error:
                raise AssertionError(f"{who}: {error} {lab.drops()}") from error
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"x" * 50_000)
                got = 0
                while got < 50_000:
                    got += len(client.recv(65536))


def test_nobody_listens_is_told_at_once(lab: Lab, ipv6: bool) -> None:
    service = "fd00:96::8" if ipv6 else "10.96.0.8"
    lab.nodes[1].world.service(service, 53, 17, {77: (lab.address((2, 2), ipv6), 9)})
    with lab.socket((1, 1), ipv6, socket.SOCK_DGRAM) as client:
        client.connect((service, 53))
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)


def test_a_tunnel_is_only_for_nodes(lab: Lab, ipv6: bool) -> None:
    if not lab.tunnel:
        return
    node = lab.nodes[2]
    node.world.maps["podwire_ipcache"].delete(pack("192.168.7.1"))
    try:
        lab.drops()
        assert not lab.talks((1, 1), (2, 1), ipv6)
        assert (2, DropReason.INVALID_IDENTITY) in lab.drops()
    finally:
        node.world.known("192.168.7.1", 6)


def test_a_pods_name_around_the_tunnel_is_a_lie(lab: Lab, ipv6: bool) -> None:
    """The other node routes natively for once, so its pods' packets arrive beside the tunnel."""
    if not lab.tunnel:
        return
    first, second = lab.nodes[1], lab.nodes[2]
    there: Any = lab.address((2, 1), ipv6)
    via, bits = ("fd00:7::2", 128) if ipv6 else ("192.168.7.2", 32)
    ip(first.name, f"route add {there}/{bits} via {via} dev u0")
    entry = first.world.maps["podwire_ipcache"][pack(there)]
    first.world.known(there, entry.identity)
    try:
        lab.drops()
        assert not lab.talks((1, 1), (2, 1), ipv6)
        assert (2, DropReason.INVALID_SOURCE_IP) in lab.drops()
    finally:
        ip(first.name, f"route del {there}/{bits} via {via} dev u0")
        first.world.known(there, entry.identity, "192.168.7.2")
        assert second
