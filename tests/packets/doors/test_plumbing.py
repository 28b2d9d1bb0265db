"""A pod's plumbing in the kernel, with the programs that are shipped."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podwire.base.config import AgentConfig
from podwire.base.errors import ConfigError, NetworkError, NotFound
from podwire.bpf import probe
from podwire.bpf.library import LinkInfo
from podwire.bpf.link import open_attached
from podwire.datapath import programs as loading
from podwire.datapath.endpoints import Plumbing, host_interface, parse_mac
from podwire.datapath.programs import Programs
from podwire.net import messages, namespaces, sysctl
from podwire.net.messages import Route
from podwire.net.stack import Stack

pytestmark = pytest.mark.kernel

GATEWAYS = ("10.0.1.254", "fd00:1::ff")
ADDRESSES = ("10.0.1.5", "fd00:1::5")


@pytest.fixture
def pod() -> Iterator[str]:
    name = f"podwire-pod-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    namespaces.create(name)
    yield name
    namespaces.delete(name)


@pytest.fixture
def programs(pins: str) -> Iterator[Programs]:
    config = AgentConfig(node_name="n1", bpf_dir=os.path.join(pins, "n1"), ct_max=1024)
    loaded = Programs.load(loading.plan(config, ("192.0.2.1",), tunnel_device=0, tunnel_mtu=0))
    yield loaded
    loaded.remove()


class Node:
    """Plumbing, run in the node's namespace as an agent's whole process is."""

    def __init__(self, netns: str, programs: Programs) -> None:
        self.netns = netns
        self.programs = programs
        self.plumbing: Plumbing = namespaces.run(
            netns, lambda: Plumbing(programs, gateways=GATEWAYS, mtu=1500, route_mtu=1450)
        )

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return namespaces.run(self.netns, work, *arguments)


@pytest.fixture
def node(netns: str, programs: Programs) -> Iterator[Node]:
    made = Node(netns, programs)
    yield made
    made.plumbing.close()


def state(node: Node, pod: str) -> dict[str, Any]:
    """Everything an attachment could leave."""
    with Stack(node.netns) as host, Stack(pod) as inside:
        return {
            "host links": [link.name for link in host.links()],
            "pod links": [link.name for link in inside.links()],
            "host routes": host.routes(),
            "pins": sorted(os.listdir(os.path.join(node.programs.loading.bpf_dir, "links", "pods"))),
        }


def attached_at(path: str) -> LinkInfo:
    with open_attached(path) as attached:
        return attached.info


def test_a_pod_is_attached_and_detached(node: Node, pod: str) -> None:
    before = state(node, pod)
    attached = node(node.plumbing.attach, pod, "container-1", ADDRESSES)
    assert attached.interface == host_interface("container-1", "eth0")
    with Stack(node.netns) as host, Stack(pod) as inside:
        outside, eth0 = host.existing(attached.interface), inside.existing("eth0")
        assert outside.ifindex == attached.ifindex
        assert (outside.mac, eth0.mac) == (parse_mac(attached.host_mac), parse_mac(attached.mac))
        assert outside.up
        assert eth0.up
        assert [address for _, address in inside.addresses(eth0.ifindex)] == ["10.0.1.5/32", "fd00:1::5/128"]
        routes = {route.prefix: route for route in inside.routes()}
        assert routes["0.0.0.0/0"] == Route("0.0.0.0/0", eth0.ifindex, via=GATEWAYS[0], mtu=1450)
        assert routes["::/0"] == Route("::/0", eth0.ifindex, via=GATEWAYS[1], mtu=1450)
        assert sorted(inside.neighbours(eth0.ifindex)) == [(one, outside.mac) for one in GATEWAYS]
        assert {route.prefix for route in host.routes()} == {"10.0.1.5/32", "fd00:1::5/128"}
        assert sorted(host.neighbours(outside.ifindex)) == [(one, eth0.mac) for one in ADDRESSES]
    pinned = os.path.join(node.programs.loading.bpf_dir, "links", "pods", attached.interface)
    for side, name in (("ingress", "podwire_from_pod"), ("egress", "podwire_to_pod")):
        info = node(attached_at, f"{pinned}-{side}")
        assert info.program == node.programs.program(name).id
        assert info.ifindex == attached.ifindex
    assert node(node.plumbing.present) == {attached.interface}
    node(node.plumbing.detach, attached.interface)
    assert state(node, pod) == before
    node(node.plumbing.detach, attached.interface)


def test_the_same_owner_again_replaces_what_was_left(node: Node, pod: str) -> None:
    first = node(node.plumbing.attach, pod, "container-1", ADDRESSES)
    second = node(node.plumbing.attach, pod, "container-1", ADDRESSES)
    assert first.interface == second.interface
    assert first.ifindex != second.ifindex
    assert node(node.plumbing.present) == {second.interface}


def test_nothing_passes_before_its_row_is_written(node: Node, pod: str) -> None:
    def router() -> None:
        with Stack() as stack:
            stack.apply(messages.link_set(1, up=True), messages.address(1, f"{GATEWAYS[0]}/32"))

    node(router)
    node(node.plumbing.attach, pod, "container-1", ADDRESSES)
    with (
        namespaces.open_socket(node.netns, socket.AF_INET, socket.SOCK_DGRAM) as server,
        namespaces.open_socket(pod, socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind((GATEWAYS[0], 5000))
        client.sendto(b"early", (GATEWAYS[0], 5000))
        server.setblocking(False)  # a veth hands over within sendto
        with pytest.raises(BlockingIOError):
            server.recv(100)


def test_each_step_made_to_fail_leaves_nothing(node: Node, pod: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th call through a door fails, for every n until attaching succeeds."""
    before = state(node, pod)
    calls = 0
    failing = 0

    def guard(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def guarded(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise NetworkError(f"call {calls} ({name}) was made to fail")
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, guarded)

    guard(Stack, "apply")
    guard(namespaces, "ifindex")
    guard(sysctl, "ensure")
    guard(sysctl, "ensure_present")
    guard(loading.links, "ensure_tc")
    failed = []
    while True:
        calls, failing = 0, failing + 1
        try:
            node(node.plumbing.attach, pod, "container-1", ADDRESSES)
        except NetworkError as error:
            failed.append(str(error))
            calls = failing = len(failed) + 1000  # looking is not a step
            assert state(node, pod) == before, error
            failing = len(failed)
        else:
            break
    assert len(failed) >= 8
    # An address that the node has no gateway for is refused before anything is made.
    node.plumbing.gateways = {4: GATEWAYS[0]}
    with pytest.raises(ConfigError, match="no router address of that family"):
        node(node.plumbing.attach, pod, "container-2", ADDRESSES)


def test_what_the_kernel_itself_refuses(node: Node, pod: str) -> None:
    with Stack(pod) as inside:
        inside.ensure_bridge("eth0")
    before = state(node, pod)
    with pytest.raises(NetworkError, match="File exists"):
        node(node.plumbing.attach, pod, "container-1", ADDRESSES)
    assert state(node, pod) == before
    with pytest.raises(NotFound, match="no network namespace"):
        node(node.plumbing.attach, "/run/netns/podwire-nobody", "container-1", ADDRESSES)
    assert state(node, pod) == before


@pytest.mark.parametrize("bound", [False, True])
def test_a_new_agent_takes_over_without_a_gap(node: Node, pod: str, programs: Programs, bound: bool) -> None:
    """What is a filter yet, and what is a link already."""
    attached = node(node.plumbing.attach, pod, "container-1", ADDRESSES)
    for pin in node(node.plumbing.unbound) if bound else ():
        node(node.plumbing.bind, pin)
    links = os.path.join(programs.loading.bpf_dir, "links", "pods")
    before = node(attached_at, os.path.join(links, f"{attached.interface}-ingress"))
    again = Programs.load(programs.loading)
    assert again.maps.directory == programs.maps.directory
    assert node(again.replace_all) == [attached.interface]
    after = node(attached_at, os.path.join(links, f"{attached.interface}-ingress"))
    assert (after.id, after.ifindex) == (before.id, before.ifindex)
    assert after.program == again.program("podwire_from_pod").id != before.program
    assert node(again.attached)[f"pods/{attached.interface}-ingress"] == after
    assert node(again.attach_mode) == ("tcx" if bound and probe.supported("tcx") else "tc")
    with Stack(node.netns) as host:
        host.delete_link(attached.interface)
    assert node(again.attached) == {}
    assert node(again.replace_all) == []
    assert os.listdir(links) == []
    again.close()
