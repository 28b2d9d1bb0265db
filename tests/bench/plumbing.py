"""The kernel's own part of attaching a pod: podwire's netlink calls, one step at a time.

Everything is made in network namespaces of this process's own, on devices that go with them. *Filters*
and *links* are the two ways to put both programs on a device; *prepared* is a pair that has its links
already and is only moved into the pod. *Two at once* are two processes side by side: the kernel lets in
one at a time wherever it holds its rtnl lock.

    python tests/bench/plumbing.py                 # all, as `make bench` does
    python tests/bench/plumbing.py filters|links   # one process of the two: pods per second
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from podwire.bpf import link as links
from podwire.bpf import object as loader
from podwire.bpf.link import Attach, Hook
from podwire.datapath import objects
from podwire.net import messages, namespaces, sysctl
from podwire.net.messages import Route, Veth
from podwire.net.netlink import Message, attribute
from podwire.net.stack import Stack

ROUNDS = 40
CLONE_NEWNET = 0x40000000
MOVE_TO = 28  # IFLA_NET_NS_FD
MAC, POD_MAC = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
GATEWAY, ADDRESS = "10.0.1.254", "10.0.1.5"
WAYS: dict[str, Attach] = {"filters": links.attach_filter, "links": links.attach_tc}
HOOKS = (("podwire_from_pod", Hook.TC_INGRESS), ("podwire_to_pod", Hook.TC_EGRESS))
_libc = ctypes.CDLL(None, use_errno=True)


class Kernel:
    """One process's node: a network namespace it is in, the programs, and how long each step took."""

    def __init__(self) -> None:
        _own_namespace()
        self.took: dict[str, list[float]] = {}
        self._stack = Stack()
        self._loaded = loader.load(loader.ObjectSpec(os.path.join(objects.directory(), "lxc.bpf.o")))
        self._kept: list[links.Link | links.Filter] = []
        self._number = 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.took.setdefault(name, []).append((time.perf_counter() - begin) * 1000)

    def pod(self, way: str, *, removed: bool) -> None:
        """Made and, unless it is to go with this process, removed again."""
        pod = self._namespace()
        device = self._device()
        with self.step(f"whole pod, {way}"):
            with self.step("pair of devices, one made in the pod"):
                self._pair(device, pod)
            ifindex = self._stack.existing(device).ifindex
            with self.step("the pod's side: up, address, neighbour, routes"):
                namespaces.run(f"/proc/self/fd/{pod}", self._inside)
            with self.step(f"both programs as {way}"):
                attached = self._attach(ifindex, way)
            self._outside(device, ifindex)
        if not removed:
            self._kept += attached  # closed, a link is undone
        else:
            with self.step(f"removal, {way}"):
                self._stack.delete_link(device)
            for one in attached:
                one.close()
            os.close(pod)

    def prepared(self) -> None:
        """A pair with links that waited for a pod."""
        pod, device = self._namespace(), self._device()
        self._pair(device, -1)
        ifindex, inner = (self._stack.existing(one).ifindex for one in (device, "eth0"))
        attached = self._attach(ifindex, "links")
        with self.step("whole pod, a pair with links that was prepared"):
            with self.step("a prepared device moved into the pod"):
                body = messages.IFINFO.pack(0, 0, inner, 0, 0) + attribute(MOVE_TO, pod)
                self._stack.apply(Message(messages.NEWLINK, 0, body, "move a device"))
            namespaces.run(f"/proc/self/fd/{pod}", self._inside)
            self._outside(device, ifindex)
        self._stack.delete_link(device)
        for one in attached:
            one.close()
        os.close(pod)

    def _namespace(self) -> int:
        """A pod's, without a name; its descriptor."""
        made = []

        def make() -> None:
            with self.step("network namespace"):
                _own_namespace()
            made.append(namespaces.open_namespace("/proc/thread-self/ns/net"))

        thread = threading.Thread(target=make, name="make a namespace")
        thread.start()
        thread.join()
        return made[0]

    def _device(self) -> str:
        self._number += 1
        return f"lxc{self._number}"

    def _pair(self, device: str, pod: int) -> None:
        self._stack.apply(messages.veth(Veth(device, MAC), Veth("eth0", POD_MAC, namespace=pod)))

    def _attach(self, ifindex: int, way: str) -> list[links.Link | links.Filter]:
        return [WAYS[way](self._loaded.programs[name], ifindex, hook) for name, hook in HOOKS]

    def _outside(self, device: str, ifindex: int) -> None:
        with self.step("the node's side: up, neighbour, route"):
            sysctl.ensure({f"ipv4/conf/{device}/rp_filter": 0})
            self._stack.apply(
                messages.link_silent(ifindex),
                messages.link_set(ifindex, up=True),
                messages.neighbour(ifindex, ADDRESS, POD_MAC),
                messages.route(Route(f"{ADDRESS}/32", ifindex)),
            )

    def _inside(self) -> None:
        with Stack() as stack:
            ifindex = stack.existing("eth0").ifindex
            stack.apply(
                messages.link_set(1, up=True),
                messages.link_silent(ifindex),
                messages.link_set(ifindex, up=True),
                messages.address(ifindex, f"{ADDRESS}/32"),
                messages.neighbour(ifindex, GATEWAY, MAC),
                messages.route(Route(f"{GATEWAY}/32", ifindex)),
                messages.route(Route("0.0.0.0/0", ifindex, via=GATEWAY)),
            )


def _own_namespace() -> None:
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "make a network namespace")


def rate(way: str) -> float:
    """Pods made and attached per second; they go with the process."""
    kernel = Kernel()
    begin = time.monotonic()
    for _ in range(ROUNDS):
        kernel.pod(way, removed=False)
    return ROUNDS / (time.monotonic() - begin)


def side_by_side(way: str) -> float:
    """The same of two processes together."""
    both = [
        subprocess.Popen([sys.executable, __file__, way], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate(timeout=300)[0] for process in both]
    return sum(float(answer) for answer in answers)


def main() -> None:
    if len(sys.argv) > 1:
        print(rate(sys.argv[1]))
        return
    kernel = Kernel()
    for _ in range(ROUNDS):
        for way in WAYS:
            kernel.pod(way, removed=True)
        kernel.prepared()
    for name, samples in kernel.took.items():
        longest = sorted(samples)[-1 - len(samples) // 100]
        print(f"{name} {statistics.median(samples):.3f} ms (p99 {longest:.1f})")
    for way in WAYS:
        print(f"pods attached by one process, {way} {rate(way):.1f} /s")
        print(f"pods attached by two at once, {way} {side_by_side(way):.1f} /s")


if __name__ == "__main__":
    main()
