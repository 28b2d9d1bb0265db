"""What the kernel says this node is: its local addresses and its devices, followed as they change.

In the walk: the Node object names the addresses that others reach this node by; the kernel knows all it
answers to, those of other devices, of bridges, broadcast addresses too. Its own table `local` is the
truth: what is in it goes to the node's sockets, whoever put it there and for whatever reason. What comes in
below a VRF device is looked up in that device's table, which has local routes of its own: they are the
node's as well. (Not those of any other table: who routes by mark to a local route takes packets that are for
others.) So policy must take all of it for the node (identity.ipcache, datapath.write), or whoever may
reach the world reaches the node by an address that is in no object.

Table `devices` says which devices carry: what is redirected into a pod's device that does not is freed by
the kernel without a word, so datapath.write has it dropped before, with a reason.

Read whole at the start and after notices were lost; in between routes are read again when one of
them changed (a dump of one table, whatever the number of other routes), and devices one by one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable
from typing import Protocol

import msgspec

from podwire.base.aio import Backoff
from podwire.base.attempts import Attempts
from podwire.base.errors import NetworkError
from podwire.net import messages
from podwire.net.netlink import attributes
from podwire.net.notices import Notices, Overrun
from podwire.net.stack import Link, Route, Stack, link_of, route_of
from podwire.state.table import Table
from podwire.state.tables import DeviceRow, LocalAddressRow
from podwire.state.views import ReadTables
from podwire.state.writers import NETWORK

log = logging.getLogger(__name__)

KINDS = {
    messages.LOCAL: "local",
    messages.BROADCAST: "broadcast",
    messages.ANYCAST: "anycast",
    messages.MULTICAST: "multicast",
}
PLACE = {kind: place for place, kind in enumerate(KINDS.values())}
ADDRESSES = (messages.NEWADDR, messages.DELADDR)
ROUTES = (messages.NEWROUTE, messages.DELROUTE)
LINKS = (messages.NEWLINK, messages.DELLINK)


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def local_addresses(self) -> Table[LocalAddressRow]: ...

    @property
    def devices(self) -> Table[DeviceRow]: ...


class Network:
    """Keeps tables local_addresses and devices, of the namespace it is run in (or of `namespace`)."""

    def __init__(
        self, tables: Written, *, namespace: str | None = None, backoff: Backoff = Backoff(0.1, 5.0)
    ) -> None:
        self.tables = tables
        self.problem = ""  # why the tables may be behind the kernel
        self._namespace = namespace
        self._backoff = backoff
        self._failures = 0
        self.attempts = Attempts()
        self._missed = {"routes", "links"}  # what is to be read whole
        self._without_device: set[int] = set()  # rows of devices that are gone
        self._vrfs: dict[int, int] = {}  # ifindex of a VRF device → its table

    async def run(self) -> None:
        """Until cancelled."""
        # Notices are asked for before the first reading: what changes in between is told.
        with Notices(self._namespace) as notices, Stack(self._namespace) as stack:
            self._catch_up(stack)
            while True:
                try:
                    wait = self._backoff.after(self._failures) if self._failures else None
                    async with asyncio.timeout(wait):
                        self._take(await notices.next())
                except TimeoutError:
                    # What was read before the time was up may be lost with the wait.
                    self._missed = {"routes", "links"}
                except Overrun as error:
                    log.warning("%s: reading everything anew", error)
                    self._missed = {"routes", "links"}
                self._catch_up(stack)

    def _take(self, told: Iterable[tuple[int, bytes]]) -> None:
        for kind, body in told:
            if (kind in ADDRESSES and not _of_link(body)) or (
                kind in ROUTES and self._concerns(route_of(body), gone=kind == messages.DELROUTE)
            ):
                self._missed.add("routes")
            elif kind in LINKS and not body[0]:  # of a family: about a bridge's port, not the device
                self._link(link_of(body), gone=kind == messages.DELLINK)

    def _concerns(self, route: Route, *, gone: bool) -> bool:
        """Whether the rows may be others now. Each device that comes has routes that all have."""
        if is_link_local(route.prefix):
            return False
        if route.table in self._vrfs.values():
            return route.type in KINDS or gone
        if route.table != messages.TABLE_LOCAL:
            return False
        row = self.tables.local_addresses.get(route.prefix)
        return gone or row is None or row.kind != KINDS.get(route.type)

    def _catch_up(self, stack: Stack) -> None:
        """Read again what may have changed. What cannot be read now stays as it was."""
        self._sweep()
        try:
            if "links" in self._missed:
                self._devices(stack.links())
            if "routes" in self._missed:
                tables = (messages.TABLE_LOCAL, *sorted(set(self._vrfs.values())))
                local = [one for table in tables for one in stack.routes(table=table, protocol=None)]
                self.tables.local_addresses.replace(rows_of(local))
        except NetworkError as error:
            self._failures += 1
            self.attempts.failed(error)
            self.problem = f"this node's own addresses and devices may have changed unseen: {error}"
            if self._failures == 1:
                log.warning("%s", self.problem)
            return
        if self._missed:
            self.attempts.succeeded()
        self._missed, self._failures, self.problem = set(), 0, ""
        self.tables.local_addresses.mark_ready(NETWORK)
        self.tables.devices.mark_ready(NETWORK)

    def _link(self, link: Link, *, gone: bool) -> None:
        row = self.tables.devices.get(link.ifindex)
        if not gone:
            self._device(link, whole=False)
        elif row is not None:
            self._gone(row)
        self._table(link.ifindex, 0 if gone else link.table)

    def _table(self, ifindex: int, table: int) -> None:
        """The table of a VRF device; 0 = it is none. Routes are read after devices: none is missed."""
        if self._vrfs.get(ifindex, 0) != table:
            self._vrfs[ifindex] = table
            self._missed.add("routes")
        if not table:
            self._vrfs.pop(ifindex, None)

    def _sweep(self) -> None:
        """Let go of devices that are gone, and whose endpoints are."""
        for ifindex in list(self._without_device):
            if not self.tables.endpoints.by("device", ifindex):
                self._without_device.discard(ifindex)
                self.tables.devices.delete(ifindex)

    def _devices(self, links: Iterable[Link]) -> None:
        present = {link.ifindex: link for link in links}
        for link in present.values():
            self._device(link, whole=True)
        for ifindex in {*self._vrfs, *present}:
            self._table(ifindex, present[ifindex].table if ifindex in present else 0)
        for row in self.tables.devices:
            if row.ifindex not in present:
                self._gone(row)

    def _device(self, link: Link, *, whole: bool) -> None:
        """`whole`: among all there are, so one without a carrier is not on its way to get one."""
        before = self.tables.devices.get(link.ifindex)
        lost = not link.carrier and (whole or (before is not None and (before.carrier or before.lost)))
        self._without_device.discard(link.ifindex)
        row = DeviceRow(link.ifindex, link.name, link.up, link.carrier, lost, link.kind, link.segments)
        self.tables.devices.put(row)

    def _gone(self, row: DeviceRow) -> None:
        """Its row stays, without a carrier, while an endpoint has it."""
        self.tables.devices.put(msgspec.structs.replace(row, up=False, carrier=False, lost=True))
        self._without_device.add(row.ifindex)


def is_link_local(prefix: str) -> bool:
    """In fe80::/10. Each pod's device brings one, and no row is needed: what a pod sends there is dropped."""
    network = ipaddress.ip_network(prefix)
    return network.version == 6 and network.is_link_local


def _of_link(body: bytes) -> bool:
    """Whether a message is about an address that is link-local."""
    values = attributes(body, messages.IFADDR.size)
    raw = values.get(2) or values.get(1) or b""
    return len(raw) == 16 and ipaddress.IPv6Address(raw).is_link_local


def rows_of(routes: Iterable[Route]) -> list[LocalAddressRow]:
    """What the routes of table local say is this node. An address may be there once per device."""
    found: dict[str, str] = {}
    for route in routes:
        kind = None if is_link_local(route.prefix) else KINDS.get(route.type)
        if kind is not None and PLACE[kind] <= PLACE[found.get(route.prefix, "multicast")]:
            found[route.prefix] = kind
    return [LocalAddressRow(prefix, kind) for prefix, kind in sorted(found.items())]
