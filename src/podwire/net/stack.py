"""The network of one namespace: read it and make it as it should be.

One netlink socket, opened in the namespace, used from anywhere. `ensure_…` and `delete_…` can be
called again with no effect; `apply` sends many messages of `net.messages` in one system call.
"""

from __future__ import annotations

import ipaddress
import struct
from errno import EEXIST
from types import TracebackType
from typing import Self

import msgspec

from podwire.base.errors import Conflict, NetworkError, NotFound
from podwire.net import messages
from podwire.net.messages import Route, Veth
from podwire.net.netlink import Failure, Message, Socket, attributes


class Link(msgspec.Struct, frozen=True):
    """A device. `peer` is the ifindex it hangs on (a veth's other end, in its own namespace), 0 = none."""

    ifindex: int
    name: str
    kind: str  # veth, bridge, vxlan, …; empty for hardware and loopback
    mac: bytes
    mtu: int
    up: bool
    carrier: bool  # up, and whatever is at its other end is as well
    master: int
    peer: int
    port: int = 0  # UDP, of a VXLAN device
    table: int = 0  # where a VRF device has the routes of those below it
    # Bytes of a packet that is cut late, or put together early, at most: GSO and GRO, both again for IPv4.
    # 0 = this kernel does not say.
    segments: tuple[int, int, int, int] = (0, 0, 0, 0)


class Stack:
    """Namespace by name or path; None = the calling thread's."""

    def __init__(self, namespace: str | None = None) -> None:
        self.namespace = namespace
        self._socket = Socket(namespace)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def apply(self, *wanted: Message) -> None:
        """Send all in one go; every one is tried, then the first failure is raised."""
        self._socket.apply(wanted)

    def attempt(self, *wanted: Message) -> list[Failure | None]:
        """Send all; the failure of each, or None."""
        return self._socket.attempt(wanted)

    # Links

    def link(self, name: str) -> Link | None:
        body = self._socket.get(messages.link_get(name=name))
        return None if body is None else link_of(body)

    def link_at(self, ifindex: int) -> Link | None:
        body = self._socket.get(messages.link_get(ifindex=ifindex))
        return None if body is None else link_of(body)

    def existing(self, name: str) -> Link:
        """The device, or NotFound."""
        found = self.link(name)
        if found is None:
            raise NotFound(f"there is no device {name}")
        return found

    def links(self) -> list[Link]:
        return [link_of(body) for _, body in self._socket.dump(messages.link_get())]

    def ensure_veth(self, end: Veth, peer: Veth) -> Link:
        """The pair, down; if a veth of that name is there it is taken as made. The link of `end`."""
        try:
            self.apply(messages.veth(end, peer))
        except Failure as failure:
            if failure.errno != EEXIST:
                raise
            return self._kind(end.name, "veth")
        return self.existing(end.name)

    def ensure_bridge(self, name: str, *, mtu: int = 1500) -> Link:
        self.apply(messages.bridge(name, mtu))
        return self._kind(name, "bridge")

    def ensure_vxlan(self, name: str, *, port: int, mtu: int) -> Link:
        """A collect-metadata VXLAN device on UDP `port`, up. Who is behind it is not asked on the wire."""
        self.apply(messages.vxlan(name, port, mtu))
        found = self._kind(name, "vxlan")
        if found.port != port:  # it cannot be changed
            self.delete_link(name)
            self.apply(messages.vxlan(name, port, mtu))
            found = self._kind(name, "vxlan")
        if not found.up or found.mtu != mtu:
            self.apply(
                messages.link_silent(found.ifindex),
                messages.link_set(found.ifindex, up=True, mtu=mtu, arp=False),
            )
            found = self._kind(name, "vxlan")
        return found

    def ensure_link(
        self, name: str, *, up: bool | None = None, mtu: int = 0, master: int | None = None
    ) -> Link:
        """An existing device made so; NotFound if there is none."""
        found = self.existing(name)
        right = (
            (up is None or found.up == up)
            and (not mtu or found.mtu == mtu)
            and (master is None or found.master == master)
        )
        if right:
            return found
        self.apply(messages.link_set(found.ifindex, up=up, mtu=mtu, master=master))
        return self.existing(name)

    def delete_link(self, name: str) -> None:
        self.apply(messages.link_delete(name=name))

    def _kind(self, name: str, kind: str) -> Link:
        found = self.existing(name)
        if found.kind != kind:
            raise Conflict(f"device {name} is no {kind}", hint=f"remove it: ip link delete {name}")
        return found

    # Addresses, routes, rules, neighbours

    def addresses(self, ifindex: int = 0) -> list[tuple[int, str]]:
        """(ifindex, ``10.0.0.1/24``), of one device or all."""
        body = messages.IFADDR.pack(0, 0, 0, 0, 0)
        found = []
        for _, answer in self._socket.dump(Message(messages.GETADDR, 0, body, "read addresses")):
            _, length, _, _, index = messages.IFADDR.unpack_from(answer)
            values = attributes(answer, messages.IFADDR.size)
            raw = values.get(2) or values.get(1)
            if raw is not None and ifindex in (0, index):
                found.append((index, f"{ipaddress.ip_address(raw)}/{length}"))
        return found

    def routes(
        self, *, table: int = messages.TABLE_MAIN, protocol: int | None = messages.PROTOCOL
    ) -> list[Route]:
        """Routes of a table that were made under `protocol`; None = all."""
        # The kernel leaves other tables out, if their numbers fit the header.
        body = messages.RTMSG.pack(0, 0, 0, 0, table if table < 256 else 0, 0, 0, 0, 0)
        found = []
        for _, answer in self._socket.dump(Message(messages.GETROUTE, 0, body, "read routes")):
            route = route_of(answer)
            if route.table == table and protocol in (None, route.protocol):
                found.append(route)
        return found

    def neighbours(self, ifindex: int) -> list[tuple[str, bytes]]:
        """(address, mac) of the permanent ones."""
        body = messages.NDMSG.pack(0, 0, 0, 0, 0)
        found = []
        for _, answer in self._socket.dump(Message(messages.GETNEIGH, 0, body, "read neighbours")):
            _, index, state, _, _ = messages.NDMSG.unpack_from(answer)
            values = attributes(answer, messages.NDMSG.size)
            if index == ifindex and state & messages.PERMANENT and 1 in values and 2 in values:
                found.append((str(ipaddress.ip_address(values[1])), values[2]))
        return found


def _number(raw: bytes | None) -> int:
    return 0 if raw is None else int(struct.unpack_from("=I", raw)[0])


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.rstrip(b"\0").decode(errors="replace")


def _address(raw: bytes | None) -> str:
    return "" if raw is None else str(ipaddress.ip_address(raw))


def link_of(body: bytes) -> Link:
    """What a message about a link says."""
    _, _, ifindex, flags, _ = messages.IFINFO.unpack_from(body)
    values = attributes(body, messages.IFINFO.size)
    info = attributes(values.get(18, b""))
    kind, data = _text(info.get(1)), attributes(info.get(2, b""))
    return Link(
        ifindex=ifindex,
        name=_text(values.get(3)),
        kind=kind,
        mac=values.get(1, b""),
        mtu=_number(values.get(4)),
        up=bool(flags & messages.UP),
        carrier=bool(flags & messages.LOWER_UP),
        master=_number(values.get(10)),
        peer=_number(values.get(5)),
        port=int.from_bytes(data.get(15, b""), "big") if kind == "vxlan" else 0,
        table=_number(data.get(1)) if kind == "vrf" else 0,
        segments=(
            _number(values.get(41)),
            _number(values.get(58)),
            _number(values.get(63)),
            _number(values.get(64)),
        ),
    )


def route_of(body: bytes) -> Route:
    """What a message about a route says."""
    family, bits, _, _, table, protocol, _, kind, flags = messages.RTMSG.unpack_from(body)
    values = attributes(body, messages.RTMSG.size)
    any_address = "::" if family == 10 else "0.0.0.0"
    priority = _number(values.get(6))
    return Route(
        prefix=f"{_address(values.get(1)) or any_address}/{bits}",
        ifindex=_number(values.get(4)),
        via=_address(values.get(5)),
        source=_address(values.get(7)),
        mtu=_number(attributes(values.get(8, b"")).get(2)),
        onlink=bool(flags & messages.ONLINK),
        table=_number(values.get(15)) or table,
        type=kind,
        priority=0 if family == 10 and priority == 1024 else priority,  # what the kernel gives IPv6 routes
        protocol=protocol,
    )


__all__ = ["Failure", "Link", "NetworkError", "Route", "Stack", "Veth", "link_of", "route_of"]
