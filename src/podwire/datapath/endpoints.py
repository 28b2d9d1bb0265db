"""One pod's plumbing: a pair of devices, addresses, routes, two programs. Undone wholly on failure.

In the walk: the agent was asked to attach a pod; what is made here becomes a row of the table
`endpoints`, from which `write` fills the maps. Until it has, the programs drop whatever the pod
sends: they do not know its device.

The pod has its addresses as /32 and /128 and reaches everything by its node's gateway, whose
hardware address it is told; the node has a route and a permanent neighbour for each of the pod's
addresses. So nobody asks for neighbours. The programs are on the device before it is up.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from errno import EEXIST
from hashlib import blake2b

import msgspec

from podwire.base import addresses as text
from podwire.base.errors import ConfigError, PodwireError
from podwire.datapath import binding
from podwire.datapath.programs import Programs
from podwire.net import messages, namespaces, sysctl
from podwire.net.messages import Route, Veth
from podwire.net.netlink import Failure
from podwire.net.stack import Stack

log = logging.getLogger(__name__)

PREFIX = "lxc"  # of host-side devices, as in the field
LOOPBACK = 1


class Attached(msgspec.Struct, frozen=True):
    """What a pod got. MACs as ``02:00:00:00:00:01``."""

    interface: str  # of the host side
    ifindex: int
    mac: str
    host_mac: str


def host_interface(owner: str, interface: str) -> str:
    """Name of the host-side device for `interface` of `owner` (a container id); the same each time."""
    return PREFIX + blake2b(f"{owner}/{interface}".encode(), digest_size=6).hexdigest()


def format_mac(raw: bytes) -> str:
    return raw.hex(":")


def parse_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def new_mac() -> bytes:
    """Random, unicast, locally administered."""
    raw = os.urandom(6)
    return bytes([raw[0] & 0xFC | 0x02]) + raw[1:]


KIND = "veth"  # what `attach` makes


class Plumbing:
    """Attaches and detaches pods of the node whose namespace the calling thread is in.

    `gateways` are the node's router addresses, `mtu` that of pods' devices, `route_mtu` the largest
    packet on the way to other nodes (smaller than `mtu` with a tunnel). Calls may come from several
    threads. Those that attach take turns, and those that detach: one takes the kernel some 30 ms, of which
    it keeps others from making devices for a few.
    """

    def __init__(
        self, programs: Programs, *, gateways: Sequence[str], mtu: int, route_mtu: int | None = None
    ) -> None:
        self.programs = programs
        self._stack, self._turn = Stack(), threading.RLock()
        self._removing, self._removal = Stack(), threading.Lock()
        self.use(gateways, mtu=mtu, route_mtu=route_mtu)

    def use(self, gateways: Sequence[str], *, mtu: int, route_mtu: int | None = None) -> None:
        """From the next pod on. Those that are there keep what they were told: a gateway's address only
        says where packets go, and one too large is answered with what is possible."""
        with self._turn:
            self.gateways = {text.family(one): one for one in gateways}
            self.mtu = mtu
            self.route_mtu = route_mtu or mtu

    def close(self) -> None:
        self._stack.close()
        self._removing.close()

    def attach(
        self, netns: str, owner: str, addresses: Sequence[str], *, interface: str = "eth0"
    ) -> Attached:
        """Plumb the pod in namespace `netns` (path or name): all or nothing.

        A device left by an earlier attempt for the same `owner` is removed first. Errors:
        NotFound (no such namespace), NetworkError, KernelError.
        """
        self._check(addresses)
        with self._turn:
            return self._attach(netns, owner, addresses, interface)

    def _attach(self, netns: str, owner: str, addresses: Sequence[str], interface: str) -> Attached:
        name = host_interface(owner, interface)
        mac, host_mac = new_mac(), new_mac()
        target = namespaces.open_namespace(netns)
        try:
            self._make(Veth(name, host_mac, self.mtu), Veth(interface, mac, self.mtu, namespace=target))
            attached = Attached(name, namespaces.ifindex(name), format_mac(mac), format_mac(host_mac))
            namespaces.run(netns, self._configure_pod, interface, addresses, host_mac)
            self._connect(attached, addresses)
        except BaseException:
            self._undo(name)
            raise
        finally:
            os.close(target)
        return attached

    def _make(self, end: Veth, peer: Veth) -> None:
        """The pair, in the place of what an earlier attempt left."""
        try:
            self._stack.apply(messages.veth(end, peer))
        except Failure as failure:
            if failure.errno != EEXIST:
                raise
            self._remove(self._stack, end.name)
            self._stack.apply(messages.veth(end, peer))

    def adopt(self, attached: Attached, addresses: Sequence[str]) -> None:
        """Only the node's side, for a pair that somebody else made (Cilium's CNI plugin does)."""
        self._check(addresses)
        with self._turn:
            try:
                self._connect(attached, addresses)
            except BaseException:
                self.programs.detach_pod(attached.interface)
                raise

    def detach(self, interface: str) -> None:
        """Remove a pod's host-side device, and with it its peer, routes and links. Gone is fine."""
        with self._removal:
            self._remove(self._removing, interface)

    def _remove(self, stack: Stack, interface: str) -> None:
        # The device first: its links go with it, at no cost of their own; then their pins.
        stack.delete_link(interface)
        self.programs.detach_pod(interface)

    def unbound(self) -> list[str]:
        """What `bind` is still to be called with."""
        return binding.unbound(self.programs)

    def bind(self, pin: str) -> None:
        """Put a link in the place of one filter of a pod; takes the kernel some 10 ms."""
        binding.bind(self.programs, pin)

    def present(self) -> set[str]:
        """Host-side devices of pods that are there now."""
        with self._turn:
            return {link.name for link in self._stack.links() if link.name.startswith(PREFIX)}

    def linked(self) -> set[str]:
        """Host-side devices of pods that have our links."""
        return self.programs.pods()

    def _check(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            if text.family(address) not in self.gateways:
                raise ConfigError(
                    f"a pod cannot have {address}: the node has no router address of that family",
                    hint="give the node a pod CIDR of that family",
                )

    def _configure_pod(self, interface: str, addresses: Sequence[str], host_mac: bytes) -> None:
        """In a thread inside the pod's namespace."""
        if any(text.family(one) == 6 for one in addresses):
            sysctl.ensure_present({f"ipv6/conf/{interface}/disable_ipv6": 0})
        with Stack() as stack:
            ifindex = namespaces.ifindex(interface)
            wanted = [
                messages.link_set(LOOPBACK, up=True),
                messages.link_silent(ifindex),
                messages.link_set(ifindex, up=True),
            ]
            for address in addresses:
                gateway = self.gateways[text.family(address)]
                everything = "::/0" if text.family(address) == 6 else "0.0.0.0/0"
                wanted += [
                    messages.address(ifindex, text.exact(address)),
                    messages.neighbour(ifindex, gateway, host_mac),
                    messages.route(Route(text.exact(gateway), ifindex)),
                    messages.route(Route(everything, ifindex, via=gateway, mtu=self._limit())),
                ]
            stack.apply(*wanted)

    def _limit(self) -> int:
        return self.route_mtu if self.route_mtu < self.mtu else 0

    def _connect(self, attached: Attached, addresses: Sequence[str]) -> None:
        """The node's side: filters first, then up, then reachable."""
        self.programs.attach_pod(attached.interface, attached.ifindex)
        sysctl.ensure({f"ipv4/conf/{attached.interface}/rp_filter": 0})
        mac = parse_mac(attached.mac)
        self._stack.apply(
            messages.link_silent(attached.ifindex),
            messages.link_set(attached.ifindex, up=True),
            *(messages.neighbour(attached.ifindex, address, mac) for address in addresses),
            *(messages.route(Route(text.exact(address), attached.ifindex)) for address in addresses),
        )

    def _undo(self, interface: str) -> None:
        """After a failure; what fails now as well is logged, the first error is what counts."""
        for step in (self._stack.delete_link, self.programs.detach_pod):
            try:
                step(interface)
            except PodwireError as error:
                log.warning("could not undo the attachment of %s: %s", interface, error)
