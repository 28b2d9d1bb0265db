"""Real packets: two nodes with two pods each, in namespaces, over both routings and both families."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from tests.packets.datapath.lab import TUNNEL_MTU, UNDERLAY_MTU, Lab, ip

from podwire.abi.enums import Direction, DropReason, EndpointFlags
from podwire.base.addresses import pack

pytestmark = pytest.mark.kernel

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
    node.world.peer(9, lab.nodes[1].pods[1][1].identity, Direction.INGRESS, 4)
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
