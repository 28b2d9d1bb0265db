"""Links in the place of filters: no packet between them, nothing left over on any way out."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.packets.doors.counted import SEEN, seen

from podwire.base.errors import NetworkError, NotFound
from podwire.bpf import library, link, probe
from podwire.bpf.filter import Filter
from podwire.bpf.link import Hook, Link
from podwire.bpf.object import Object, ObjectSpec, load
from podwire.datapath import binding
from podwire.datapath.programs import BINDING, Programs
from podwire.net import messages, namespaces
from podwire.net.messages import Veth
from podwire.net.stack import Stack

LOOPBACK = 1
MAC, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
COUNTED = (
    SEEN
    + """SEC("tc") int first(struct __sk_buff *skb) { note(0); return 0; }
SEC("tc") int second(struct __sk_buff *skb) { note(1); return 0; }
"""
)
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        os.geteuid() == 0 and not probe.supported("tcx"), reason="this kernel has no links on devices (tcx)"
    ),
]


@pytest.fixture
def counted(compile_bpf: Callable[[str], str]) -> Any:
    with load(ObjectSpec(compile_bpf(COUNTED))) as loaded:
        yield loaded


@pytest.fixture
def placed(netns: str, pins: str, counted: Object) -> str:
    """Where a filter of program `first` on the loopback device of `netns` is recorded."""
    path = os.path.join(pins, "lo-ingress")

    def inside() -> None:
        with Stack() as stack:
            stack.apply(messages.link_set(LOOPBACK, up=True))
        ensured = link.ensure_tc(
            counted.program("first"), LOOPBACK, Hook.TC_INGRESS, path, attach=link.attach_filter
        )
        assert isinstance(ensured, Filter)

    namespaces.run(netns, inside)
    return path


def filtered(netns: str) -> int:
    """The program of the filter on loopback, 0 = there is none."""
    found: int = namespaces.run(netns, lambda: Filter(LOOPBACK, Hook.TC_INGRESS).info.program)
    return found


def test_each_packet_meets_the_filter_or_the_link(
    counted: Object, netns: str, pins: str, placed: str
) -> None:
    """Datagrams go over loopback without a pause while the one takes the other's place."""
    sent, enough = 0, 300
    bound = threading.Event()

    def rebind() -> None:
        link.bind(counted.program("second"), placed, os.path.join(pins, "beside"))
        bound.set()

    with namespaces.open_socket(netns, socket.AF_INET, socket.SOCK_DGRAM) as udp:
        thread = threading.Thread(target=namespaces.run, args=(netns, rebind), name="bind")
        while min(seen(counted)) < enough and (sent <= enough or thread.is_alive() or bound.is_set()):
            udp.sendto(b"x", ("127.0.0.1", 9))
            sent += 1
            if sent == enough:
                thread.start()
        thread.join()
    assert bound.is_set()
    # Nobody listens: each datagram is answered by one ICMP error at most, which is seen as well.
    assert sent <= sum(seen(counted)) <= 2 * sent
    assert filtered(netns) == 0
    assert os.listdir(pins) == ["lo-ingress"]
    with link.open_attached(placed) as made:
        assert isinstance(made, Link)
        assert (made.info.program, made.info.ifindex) == (counted.program("second").id, LOOPBACK)


@pytest.mark.parametrize("step", ["pin", "detach", "rename"])
@pytest.mark.parametrize("again", ["by the next agent", "by the same"])
def test_stopped_on_the_way_the_next_try_finishes(
    counted: Object,
    netns: str,
    pins: str,
    placed: str,
    step: str,
    again: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each step a program is on the device, and who comes next has a link and nothing beside it."""

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    beside = os.path.join(pins, "beside")
    os.mkdir(beside)
    with monkeypatch.context() as patch:
        owner: Any = {"pin": Link, "detach": Filter, "rename": os}[step]
        patch.setattr(owner, step, killed)
        with pytest.raises(Killed):
            namespaces.run(
                netns, link.bind, counted.program("second"), placed, os.path.join(beside, "lo-ingress")
            )
    before = sum(seen(counted))
    with namespaces.open_socket(netns, socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x", ("127.0.0.1", 9))
    assert sum(seen(counted)) > before
    if again == "by the same":
        path = os.path.join(beside, "lo-ingress")
        namespaces.run(netns, link.bind, counted.program("second"), placed, path)
    else:
        namespaces.run(netns, link.all_bound, pins, beside)
    assert os.listdir(beside) == []
    nothing_to_finish = step == "pin" and again == "by the next agent"
    with link.open_attached(placed) as made:
        assert isinstance(made, Filter if nothing_to_finish else Link)
    assert bool(filtered(netns)) == nothing_to_finish


def test_a_device_that_goes_meanwhile(
    counted: Object, netns: str, pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its link is made, and after it: nothing is left beside."""
    path, beside = os.path.join(pins, "lxc1-ingress"), os.path.join(pins, "beside")

    def attach() -> None:
        with Stack() as stack:
            ifindex = stack.ensure_veth(Veth("lxc1", MAC), Veth("eth0", OTHER)).ifindex
        made = link.ensure_tc(
            counted.program("first"), ifindex, Hook.TC_INGRESS, path, attach=link.attach_filter
        )
        made.close()

    def delete() -> None:
        with Stack() as stack:
            stack.delete_link("lxc1")

    namespaces.run(netns, attach)
    namespaces.run(netns, delete)
    with pytest.raises(NetworkError, match="there is no device"):
        namespaces.run(netns, link.bind, counted.program("second"), path, beside)
    assert os.listdir(pins) == ["lxc1-ingress"]
    os.unlink(path)
    namespaces.run(netns, attach)
    real = Link.pin

    def pin(made: Link, where: str) -> None:
        real(made, where)
        namespaces.run(netns, delete)

    monkeypatch.setattr(Link, "pin", pin)
    namespaces.run(netns, link.bind, counted.program("second"), path, beside)
    assert os.listdir(pins) == ["lxc1-ingress"]


def test_pods_have_filters_first_and_links_when_they_are_bound(programs: Programs, netns: str) -> None:
    def here(work: Callable[..., Any], *arguments: Any) -> Any:
        return namespaces.run(netns, work, *arguments)

    with Stack(netns) as stack:
        ifindex = stack.ensure_veth(Veth("lxc1", MAC), Veth("eth0", OTHER)).ifindex
    here(programs.attach_pod, "lxc1", ifindex)
    assert here(programs.attach_mode) == "tc"
    pins = here(binding.unbound, programs)
    assert pins == ["pods/lxc1-egress", "pods/lxc1-ingress"]
    here(binding.bind, programs, pins[0])
    assert here(binding.unbound, programs) == pins[1:]
    assert here(programs.replace_all) == ["lxc1"]
    here(binding.bind, programs, pins[1])
    here(binding.bind, programs, pins[1])
    assert here(binding.unbound, programs) == []
    assert here(programs.attach_mode) == "tcx"
    attached = here(programs.attached)
    assert {name: info.type for name, info in attached.items()} == dict.fromkeys(pins, library.LINK_TYPE_TCX)
    assert attached[pins[1]].program == programs.program("podwire_from_pod").id
    assert attached[pins[0]].program == programs.program("podwire_to_pod").id
    assert os.listdir(os.path.join(programs.loading.bpf_dir, BINDING)) == []
    here(programs.detach_pod, "lxc1")
    assert here(programs.attached) == {}
    here(binding.bind, programs, pins[1])
    with pytest.raises(NotFound):
        link.open_attached(os.path.join(programs.loading.bpf_dir, "links", pins[1]))


def test_a_pod_that_goes_while_it_is_bound_is_no_failure(
    programs: Programs, netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is still there is: it is tried again."""
    with Stack(netns) as stack:
        ifindex = stack.ensure_veth(Veth("lxc1", MAC), Veth("eth0", OTHER)).ifindex
    namespaces.run(netns, programs.attach_pod, "lxc1", ifindex)
    before = namespaces.run(netns, programs.attached)

    def refused(*_: Any) -> int:
        return -19  # ENODEV

    monkeypatch.setattr(library, "link_create", refused)
    with pytest.raises(NetworkError):
        namespaces.run(netns, binding.bind, programs, "pods/lxc1-ingress")
    assert namespaces.run(netns, programs.attached) == before
    with Stack(netns) as stack:
        stack.delete_link("lxc1")
    namespaces.run(netns, binding.bind, programs, "pods/lxc1-ingress")
    assert namespaces.run(netns, binding.unbound, programs) == []
