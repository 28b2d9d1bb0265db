"""The kernel's word on addresses and devices: read whole, followed, kept while it cannot be read."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import NetworkError
from podwire.net import messages
from podwire.net.messages import BROADCAST, LOCAL, TABLE_LOCAL, UNICAST, Route
from podwire.net.netlink import attribute
from podwire.net.notices import Notices, Overrun
from podwire.net.stack import Link, Stack, link_of
from podwire.sources.network import Network, rows_of
from podwire.state.tables import EndpointRow, Tables

LOOPBACK = Route("127.0.0.0/8", 1, table=TABLE_LOCAL, type=LOCAL)
OWN = Route("192.0.2.1/32", 2, table=TABLE_LOCAL, type=LOCAL)
LOWER_UP = 1 << 16


def link(ifindex: int, name: str, flags: int = messages.UP | LOWER_UP, family: int = 0) -> bytes:
    """A message about a device, as the kernel writes it."""
    return messages.IFINFO.pack(family, 1, ifindex, flags, 0) + attribute(3, name.encode())


def address(text: str) -> bytes:
    """A message about an address of device 2."""
    parsed = ipaddress.ip_address(text)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    return messages.IFADDR.pack(family, parsed.max_prefixlen, 0, 0, 2) + attribute(2, parsed.packed)


class Kernel:
    """Of `net.stack.Stack` what is read; `broken` says why it cannot be."""

    def __init__(self) -> None:
        self.devices = [link_of(link(2, "eth0"))]
        self.all = [LOOPBACK, OWN]
        self.broken = ""
        self.read = 0

    def links(self) -> list[Link]:
        if self.broken:
            raise NetworkError(self.broken)
        return self.devices

    def routes(self, *, table: int, protocol: int | None) -> list[Route]:
        if self.broken:
            raise NetworkError(self.broken)
        self.read += 1
        return [one for one in self.all if one.table == table]


def started() -> tuple[Network, Any]:
    network, kernel = Network(Tables()), Kernel()
    network._catch_up(kernel)  # type: ignore[arg-type]
    return network, kernel


def addresses(network: Network) -> dict[str, str]:
    return {row.prefix: row.kind for row in network.tables.local_addresses}


# --- what is read again, and when ------------------------------------------------------------------


def test_an_address_that_comes_or_goes_has_the_routes_read_again() -> None:
    network, kernel = started()
    assert addresses(network) == {"127.0.0.0/8": "local", "192.0.2.1/32": "local"}
    kernel.all.append(Route("192.0.2.2/32", 2, table=TABLE_LOCAL, type=LOCAL))
    network._take([(messages.NEWADDR, address("192.0.2.2"))])
    network._catch_up(kernel)
    assert "192.0.2.2/32" in addresses(network)
    kernel.all.pop()
    network._take([(messages.DELADDR, address("192.0.2.2"))])
    network._catch_up(kernel)
    assert "192.0.2.2/32" not in addresses(network)


def test_link_local_addresses_and_what_is_known_already_are_no_reason_to_read() -> None:
    network, kernel = started()
    read = kernel.read
    notices = [
        (messages.NEWADDR, address("fe80::1")),
        (messages.NEWROUTE, messages.route(Route("fe80::1/128", 2, table=TABLE_LOCAL, type=LOCAL)).body),
        (messages.NEWROUTE, messages.route(OWN).body),
        (messages.NEWROUTE, messages.route(Route("198.51.100.0/24", 2, type=UNICAST)).body),
    ]
    network._take(notices)
    network._catch_up(kernel)
    assert kernel.read == read
    network._take([(messages.DELROUTE, messages.route(OWN).body)])
    network._catch_up(kernel)
    assert kernel.read == read + 1


def test_of_one_prefix_that_is_several_things_the_strongest_word_counts() -> None:
    one = Route("192.0.2.255/32", 2, table=TABLE_LOCAL, type=BROADCAST)
    other = Route("192.0.2.255/32", 3, table=TABLE_LOCAL, type=LOCAL)
    for routes in ((one, other), (other, one)):
        assert [(row.prefix, row.kind) for row in rows_of(routes)] == [("192.0.2.255/32", "local")]


# --- devices ---------------------------------------------------------------------------------------


def test_a_device_comes_loses_its_carrier_and_goes() -> None:
    network, kernel = started()

    def row() -> Any:
        return network.tables.devices.get(7)

    network._take([(messages.NEWLINK, link(7, "lxc7", messages.UP))])
    assert (row().carrier, row().lost) == (False, False), "it is on its way to get one"
    network._take([(messages.NEWLINK, link(7, "lxc7"))])
    assert (row().carrier, row().lost) == (True, False)
    network._take([(messages.NEWLINK, link(7, "lxc7", messages.UP))])
    assert (row().carrier, row().lost) == (False, True)
    network._take([(messages.DELLINK, link(7, "lxc7", family=socket.AF_BRIDGE))])
    network._catch_up(kernel)
    assert row() is not None, "a port that a bridge gives up is a device all the same"
    network._take([(messages.DELLINK, link(7, "lxc7")), (messages.DELLINK, link(8, "never seen"))])
    network._catch_up(kernel)
    assert row() is None and network.tables.devices.get(8) is None


def test_the_row_of_a_device_that_is_gone_stays_as_long_as_its_endpoint() -> None:
    network, kernel = started()
    network._take([(messages.NEWLINK, link(7, "lxc7"))])
    network.tables.endpoints.put(
        EndpointRow(1, "prod", "web", "u", "c", "/n", "lxc7", 7, "", "", "10.0.1.5", "", (), 0, (), "ready")
    )
    network._take([(messages.DELLINK, link(7, "lxc7"))])
    network._catch_up(kernel)
    row = network.tables.devices.get(7)
    assert row is not None and (row.up, row.carrier, row.lost) == (False, False, True)
    network.tables.endpoints.delete(1)
    network._catch_up(kernel)
    assert network.tables.devices.get(7) is None


def test_devices_that_went_unnoticed_are_missed_by_a_reading_of_all() -> None:
    network, kernel = started()
    kernel.devices = [link_of(link(3, "eth1", messages.UP))]
    network._missed = {"links"}
    network._catch_up(kernel)
    network._catch_up(kernel)
    assert [(row.ifindex, row.lost) for row in network.tables.devices] == [(3, True)]


# --- what cannot be read ---------------------------------------------------------------------------


def test_what_cannot_be_read_stays_as_it_was_and_is_told() -> None:
    network, kernel = started()
    kernel.broken, kernel.all = "no memory", []
    network._missed = {"routes", "links"}
    for failures in (1, 2):
        network._catch_up(kernel)
        assert "no memory" in network.problem and network._failures == failures
        assert set(addresses(network)) == {"127.0.0.0/8", "192.0.2.1/32"}
    kernel.broken = ""
    network._catch_up(kernel)
    assert network.problem == "" and network._failures == 0 and not addresses(network)


def test_nothing_is_ready_before_all_was_read_once() -> None:
    network, kernel = Network(Tables()), Kernel()
    typed: Any = kernel
    kernel.broken = "no"
    network._catch_up(typed)
    assert not network.tables.local_addresses.ready and not network.tables.devices.ready
    kernel.broken = ""
    network._catch_up(typed)
    assert network.tables.local_addresses.ready and network.tables.devices.ready


@pytest.mark.parametrize("error", [Overrun, TimeoutError])
def test_after_lost_notices_everything_is_read_anew(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the kernel's own tables of this namespace, which takes no privilege to read."""

    async def main() -> None:
        network = Network(Tables(), backoff=Backoff(0.001, 0.002))
        told, readings = iter([error()]), []
        links = Stack.links

        async def next_(_: Notices) -> list[tuple[int, bytes]]:
            for one in told:
                raise one
            await asyncio.Event().wait()
            raise AssertionError

        def counted(stack: Stack) -> list[Link]:
            readings.append(1)
            return list(links(stack))

        monkeypatch.setattr(Notices, "next", next_)
        monkeypatch.setattr(Stack, "links", counted)
        async with cancelling("follow", network.run()):
            await eventually(lambda: len(readings) == 2, timeout=10, what="the second reading")
        assert "lo" in {row.name for row in network.tables.devices}
        assert network.tables.local_addresses.get("127.0.0.1/32") is not None

    asyncio.run(main())
