"""Attach, pin, replace, detach, on devices of a namespace of our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from podwire.base.errors import NetworkError, NotFound
from podwire.bpf import link, probe
from podwire.bpf.link import Filter, Hook, Link
from podwire.bpf.map import U32
from podwire.bpf.object import Object, ObjectSpec, load
from podwire.net import namespaces

pytestmark = pytest.mark.kernel

PROGRAMS = """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 2);
} seen SEC(".maps");
static void note(__u32 index)
{
	__u32 *value = bpf_map_lookup_elem(&seen, &index);

	if (value)
		__sync_fetch_and_add(value, 1);
}
SEC("tc") int first(struct __sk_buff *skb) { note(0); return -1; }
SEC("tc") int second(struct __sk_buff *skb) { note(1); return -1; }
SEC("xdp") int early(struct xdp_md *ctx) { note(0); return XDP_PASS; }
SEC("cgroup/connect4") int connecting(struct bpf_sock_addr *ctx) { note(0); return 1; }
SEC("cgroup/connect4") int refusing(struct bpf_sock_addr *ctx) { note(1); return 0; }
"""
LOOPBACK = 1


@pytest.fixture
def programs(compile_bpf: Callable[[str], str]) -> Any:
    with load(ObjectSpec(compile_bpf(PROGRAMS))) as loaded:
        yield loaded


def seen(programs: Object) -> list[int]:
    with programs.map("seen", U32, U32) as table:
        return [table[0], table[1]]


def send(netns: str) -> None:
    """One datagram over the namespace's loopback."""

    def inside() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"x", ("127.0.0.1", 9))

    namespaces.run(netns, inside)


def loopback_up(netns: str) -> None:
    import fcntl
    import struct

    with namespaces.open_socket(netns, socket.AF_INET, socket.SOCK_DGRAM) as udp:
        fcntl.ioctl(udp, 0x8914, struct.pack("16sH14x", b"lo", 0x1))


def test_a_pinned_link_outlives_its_descriptor_and_is_replaced(
    programs: Object, netns: str, pins: str
) -> None:
    loopback_up(netns)
    path = os.path.join(pins, "lo")
    first, second = programs.program("first"), programs.program("second")
    made = namespaces.run(netns, link.attach_tc, first, LOOPBACK, Hook.TC_EGRESS)
    assert isinstance(made, Link)
    made.pin(path)
    made.close()
    send(netns)
    assert seen(programs)[0] >= 1

    again = Link.open(path)
    info = again.info
    assert (info.program, info.ifindex, info.attach_type) == (first.id, LOOPBACK, Hook.TC_EGRESS)
    again.replace(second)
    before = seen(programs)
    send(netns)
    after = seen(programs)
    assert after[0] == before[0]
    assert after[1] > before[1]

    again.detach()
    assert os.listdir(pins) == []
    send(netns)
    assert seen(programs) == after
    with pytest.raises(NotFound, match="no link is pinned"):
        Link.open(path)


def test_ensure_attaches_replaces_or_leaves_alone(programs: Object, netns: str, pins: str) -> None:
    path = os.path.join(pins, "lo")
    first, second = programs.program("first"), programs.program("second")

    def ensure(program: Any, ifindex: int = LOOPBACK) -> tuple[int, int]:
        with namespaces.run(netns, link.ensure_tc, program, ifindex, Hook.TC_INGRESS, path) as made:
            return made.info.id, made.info.program

    number, attached = ensure(first)
    assert attached == first.id
    assert ensure(first) == (number, first.id)
    assert ensure(second) == (number, second.id)


def test_a_device_that_is_not_there(programs: Object, netns: str) -> None:
    with pytest.raises(NetworkError, match="no device 4711"):
        namespaces.run(netns, link.attach_tc, programs.program("first"), 4711, Hook.TC_INGRESS)


def test_where_there_are_no_links_a_filter_does_it(programs: Object, netns: str) -> None:
    loopback_up(netns)

    def inside() -> None:
        placed = Filter(LOOPBACK, Hook.TC_INGRESS)
        placed.replace(programs.program("first"))
        placed.replace(programs.program("second"))

    namespaces.run(netns, inside)
    send(netns)
    assert seen(programs)[0] == 0
    assert seen(programs)[1] >= 1
    namespaces.run(netns, Filter(LOOPBACK, Hook.TC_INGRESS).detach)
    namespaces.run(netns, Filter(LOOPBACK, Hook.TC_INGRESS).detach)


def test_xdp(programs: Object, netns: str) -> None:
    loopback_up(netns)

    def inside() -> Link:
        return link.attach_xdp(programs.program("early"), LOOPBACK, generic=True)

    with namespaces.run(netns, inside) as made:
        send(netns)
        assert seen(programs)[0] >= 1
        assert made.info.attach_type == Hook.XDP


def test_a_cgroup(programs: Object, netns: str, pins: str) -> None:
    directory = os.path.join(probe.cgroup2(), os.path.basename(pins))
    os.mkdir(directory)
    path = os.path.join(pins, "connect4")
    try:
        with link.ensure_cgroup(programs.program("connecting"), directory, path) as made:
            number = made.info.id
        with link.ensure_cgroup(programs.program("refusing"), directory, path) as made:
            assert made.info.id == number
            assert made.info.program == programs.program("refusing").id
            made.detach()
        assert os.listdir(pins) == []
    finally:
        os.rmdir(directory)
    with pytest.raises(NotFound, match="there is no cgroup"):
        link.attach_cgroup(programs.program("connecting"), directory)
