"""Local routes of the tables of VRF devices, from what the kernel tells; no such device is needed."""

from __future__ import annotations

import struct
from typing import Any

from podwire.net import messages
from podwire.net.messages import LOCAL, TABLE_LOCAL, UNICAST, Route
from podwire.net.netlink import attribute
from podwire.net.stack import Link, link_of
from podwire.sources.network import Network
from podwire.state.tables import Tables


def vrf(ifindex: int, name: str, table: int) -> bytes:
    """A message about a VRF device, as the kernel writes it."""
    info = attribute(1, b"vrf\0") + attribute(2, attribute(1, struct.pack("=I", table)))
    return (
        messages.IFINFO.pack(0, 1, ifindex, messages.UP, 0)
        + attribute(3, name.encode())
        + attribute(18, info)
    )


class Kernel:
    """Of `net.stack.Stack` what is read."""

    def __init__(self) -> None:
        self.devices: list[Link] = []
        self.all: list[Route] = [Route("192.0.2.1/32", 2, table=TABLE_LOCAL, type=LOCAL)]
        self.read = 0

    def links(self) -> list[Link]:
        return self.devices

    def routes(self, *, table: int, protocol: int | None) -> list[Route]:
        self.read += 1
        return [one for one in self.all if one.table == table]


def told(network: Network, kernel: Any, *notices: tuple[int, bytes]) -> set[str]:
    network._take(notices)
    network._catch_up(kernel)
    return {row.prefix for row in network.tables.local_addresses}


def route(wanted: Route) -> bytes:
    """A message about a route, as the kernel writes it."""
    return messages.route(wanted).body


def test_the_table_of_a_vrf_device_is_followed_as_long_as_the_device_is_there() -> None:
    network, kernel = Network(Tables()), Kernel()
    blue = Route("198.51.100.7/32", 3, table=4711, type=LOCAL)
    kernel.all += [blue, Route("198.51.100.0/24", 3, table=4711, type=UNICAST)]
    kernel.all += [Route("0.0.0.0/0", 1, table=100, type=LOCAL)]  # as transparent proxies have
    assert told(network, kernel) == {"192.0.2.1/32"}
    assert link_of(vrf(9, "blue", 4711)).table == 4711
    both = {"192.0.2.1/32", "198.51.100.7/32"}
    assert told(network, kernel, (messages.NEWLINK, vrf(9, "blue", 4711))) == both
    read = kernel.read
    assert told(network, kernel, (messages.NEWLINK, vrf(9, "blue", 4711))) == both
    assert kernel.read == read, "the same device again is no reason to read routes"
    later = Route("198.51.100.8/32", 3, table=4711, type=LOCAL)
    kernel.all.append(later)
    assert told(network, kernel, (messages.NEWROUTE, route(later))) == {*both, later.prefix}
    assert told(network, kernel, (messages.NEWLINK, vrf(9, "blue", 4712))) == {"192.0.2.1/32"}
    assert told(network, kernel, (messages.NEWLINK, vrf(9, "blue", 4711))) == {*both, later.prefix}
    assert told(network, kernel, (messages.DELLINK, vrf(9, "blue", 4711))) == {"192.0.2.1/32"}


def test_a_vrf_device_that_is_there_at_the_start_is_followed() -> None:
    network, kernel = Network(Tables()), Kernel()
    kernel.devices.append(link_of(vrf(9, "blue", 4711)))
    kernel.all = [Route("198.51.100.7/32", 3, table=4711, type=LOCAL)]
    assert told(network, kernel) == {"198.51.100.7/32"}
    kernel.devices.clear()
    network._missed = {"routes", "links"}
    assert told(network, kernel) == set()
