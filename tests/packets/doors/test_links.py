"""Attach, pin, replace, detach, on devices of a namespace of our own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.packets.doors.counted import SEEN, seen

from podwire.base.errors import NetworkError, NotFound
from podwire.bpf import link, probe
from podwire.bpf.filter import Filter
from podwire.bpf.link import Hook, Link
from podwire.bpf.object import Object, ObjectSpec, load
from podwire.net import namespaces

pytestmark = pytest.mark.kernel

PROGRAMS = (
    SEEN
    + """SEC("tc") int first(struct __sk_buff *skb) { note(0); return -1; }
SEC("tc") int second(struct __sk_buff *skb) { note(1); return -1; }
SEC("xdp") int early(struct xdp_md *ctx) { note(0); return XDP_PASS; }
SEC("cgroup/connect4") int connecting(struct bpf_sock_addr *ctx) { note(0); return 1; }
SEC("cgroup/connect4") int refusing(struct bpf_sock_addr *ctx) { note(1); return 0; }
"""
)
LOOPBACK = 1


@pytest.fixture
def programs(compile_bpf: Callable[[str], str]) -> Any:
    with load(ObjectSpec(compile_bpf(PROGRAMS))) as loaded:
        yield loaded


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
    made.pin(path)
    made.close()
    send(netns)
    assert seen(programs)[0] >= 1

    again = link.open_attached(path)
    info = namespaces.run(netns, lambda: again.info)
    assert (info.program, info.ifindex, info.attach_type) == (first.id, LOOPBACK, Hook.TC_EGRESS)
    namespaces.run(netns, again.replace, second)
    before = seen(programs)
    send(netns)
    after = seen(programs)
    assert after[0] == before[0]
    assert after[1] > before[1]

    namespaces.run(netns, again.detach)
    assert os.listdir(pins) == []
    send(netns)
    assert seen(programs) == after
    with pytest.raises(NotFound, match="no link is pinned"):
        link.open_attached(path)


def test_ensure_attaches_replaces_or_leaves_alone(programs: Object, netns: str, pins: str) -> None:
    path = os.path.join(pins, "lo")
    first, second = programs.program("first"), programs.program("second")

    def attach(program: Any) -> tuple[int, int]:
        with link.ensure_tc(program, LOOPBACK, Hook.TC_INGRESS, path) as made:
            return made.info.id, made.info.program

    def ensure(program: Any) -> tuple[int, int]:
        found: tuple[int, int] = namespaces.run(netns, attach, program)
        return found

    number, attached = ensure(first)
    assert attached == first.id
    assert ensure(first) == (number, first.id)
    assert ensure(second) == (number, second.id)


def test_a_device_that_is_not_there(programs: Object, netns: str) -> None:
    with pytest.raises(NetworkError, match="no device 4711"):
        namespaces.run(netns, link.attach_tc, programs.program("first"), 4711, Hook.TC_INGRESS)


@pytest.fixture
def placed(netns: str, pins: str) -> Filter:
    """A filter on the loopback device of `netns`, recorded, without a program yet."""
    loopback_up(netns)
    made: Filter = namespaces.run(netns, Filter, LOOPBACK, Hook.TC_INGRESS)
    made.pin(os.path.join(pins, "lo"))
    return made


def test_where_there_are_no_links_a_filter_does_it(
    programs: Object, netns: str, pins: str, placed: Filter
) -> None:
    path = os.path.join(pins, "lo")
    first, second = programs.program("first"), programs.program("second")
    namespaces.run(netns, placed.replace, first)
    again = link.open_attached(path)  # as an agent that was started anew does
    assert isinstance(again, Filter)
    info = namespaces.run(netns, lambda: again.info)
    assert (info.program, info.ifindex, info.attach_type) == (first.id, LOOPBACK, Hook.TC_INGRESS)
    namespaces.run(netns, again.replace, second)
    assert namespaces.run(netns, lambda: placed.info.program) == second.id
    send(netns)
    assert seen(programs)[0] == 0
    assert seen(programs)[1] >= 1
    namespaces.run(netns, again.detach)
    assert namespaces.run(netns, lambda: placed.info.program) == 0
    namespaces.run(netns, again.detach)
    assert os.listdir(pins) == []


def test_a_filter_is_replaced_between_two_packets(programs: Object, netns: str, placed: Filter) -> None:
    """While datagrams go over loopback without a pause, each is seen by one program or the other."""
    both = [programs.program("first"), programs.program("second")]
    sent, enough = 0, 300
    namespaces.run(netns, placed.replace, both[0])
    done = threading.Event()

    def replacing() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            placed.replace(both[turn % 2])

    thread = threading.Thread(target=namespaces.run, args=(netns, replacing), name="replace")
    thread.start()
    try:
        with namespaces.open_socket(netns, socket.AF_INET, socket.SOCK_DGRAM) as udp:
            # Until both programs have had their share, so that replacing went on meanwhile.
            while min(seen(programs)) < enough:
                udp.sendto(b"x", ("127.0.0.1", 9))
                sent += 1
    finally:
        done.set()
        thread.join()
    # Nobody listens: each datagram is answered by one ICMP error at most, which is seen as well.
    assert sum(seen(programs)) >= sent
    namespaces.run(netns, placed.detach)


def test_a_filter_counts_as_gone_in_another_namespace_and_without_its_device(
    programs: Object, netns: str, pins: str, placed: Filter
) -> None:
    namespaces.run(netns, placed.replace, programs.program("first"))
    assert (placed.info.ifindex, placed.info.program) == (0, 0)
    missing = Filter(4711, Hook.TC_INGRESS)
    assert missing.info.ifindex == 0
    missing.detach()
    placed.detach()  # here it can only forget it: the filter is in the other namespace
    assert os.listdir(pins) == []
    assert namespaces.run(netns, lambda: Filter(LOOPBACK, Hook.TC_INGRESS).info.program) == (
        programs.program("first").id
    )


def test_a_filter_on_a_device_that_is_not_there(programs: Object) -> None:
    with pytest.raises(NetworkError, match="no device 4711"):
        Filter(4711, Hook.TC_INGRESS).replace(programs.program("first"))


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
