"""This node's own addresses and devices, followed in a namespace of our own."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from podwire.base.aio import Supervised, eventually
from podwire.net import messages
from podwire.net.messages import LOCAL, TABLE_LOCAL, Route, Veth
from podwire.net.stack import Stack
from podwire.sources.network import Network
from podwire.state.tables import Tables
from podwire.testing.walk import Walk

pytestmark = pytest.mark.kernel

WITHIN = 20.0


def follow(netns: str, work: Callable[[Tables, Stack], Awaitable[None]]) -> None:
    """`work` while the tables are kept."""

    async def run() -> None:
        tables = Tables()
        with Stack(netns) as stack:
            async with Supervised("test") as group:
                group.start("follow", Network(tables, namespace=netns).run())
                await eventually(lambda: tables.devices.ready, timeout=WITHIN, what="the first reading")
                assert tables.local_addresses.ready
                await work(tables, stack)

    asyncio.run(run())


async def until(tables: Tables, **wanted: str | None) -> None:
    """Until local_addresses has each prefix with this kind, or (None) not."""

    def reached() -> bool:
        rows = {row.prefix: row.kind for row in tables.local_addresses}
        return all(rows.get(prefix) == kind for prefix, kind in wanted.items())

    await eventually(reached, timeout=WITHIN, what=f"{wanted}")


def pair(stack: Stack) -> int:
    """A pair of devices, both up; the ifindex of one."""
    stack.apply(
        messages.veth(Veth("nic", bytes.fromhex("020000000001")), Veth("far", bytes.fromhex("020000000002")))
    )
    stack.apply(messages.link_set(name="nic", up=True), messages.link_set(name="far", up=True))
    return stack.existing("nic").ifindex


def test_addresses_of_every_device_come_and_go(netns: str) -> None:
    async def work(tables: Tables, stack: Stack) -> None:
        stack.apply(messages.link_set(1, up=True), messages.address(1, "172.30.0.1/32"))
        nic = pair(stack)
        stack.apply(messages.address(nic, "192.0.2.1/24"), messages.address(nic, "2001:db8::1/64"))
        stack.ensure_bridge("br")
        stack.apply(messages.address(stack.existing("br").ifindex, "198.51.100.1/28"))
        present: dict[str, str | None] = {
            "127.0.0.0/8": "local",
            "::1/128": "local",
            "172.30.0.1/32": "local",
            "192.0.2.1/32": "local",
            "192.0.2.255/32": "broadcast",
            "2001:db8::1/128": "local",
            "198.51.100.1/32": "local",
            "198.51.100.15/32": "broadcast",
        }
        await until(tables, **present)
        # What the node answers to without having the address.
        anything = Route("10.9.0.0/16", 1, type=LOCAL, table=TABLE_LOCAL)
        stack.apply(messages.route(anything), messages.route(Route("203.0.113.0/24", nic)))
        await until(tables, **{"10.9.0.0/16": "local"})
        assert "203.0.113.0/24" not in tables.local_addresses, "a route of another table"
        stack.apply(messages.route(anything, delete=True))
        stack.apply(messages.address(1, "172.30.0.1/32", delete=True))
        stack.delete_link("nic")
        gone = ("10.9.0.0/16", "172.30.0.1/32", "192.0.2.1/32", "192.0.2.255/32", "2001:db8::1/128")
        await until(tables, **dict.fromkeys(gone), **{"198.51.100.1/32": "local"})

    follow(netns, work)


def test_an_anycast_address_of_a_router_is_the_nodes(netns: str) -> None:
    async def work(tables: Tables, stack: Stack) -> None:
        nic = pair(stack)
        stack.apply(messages.address(nic, "2001:db8:7::1/64"))
        command = ["ip", "netns", "exec", netns, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]
        subprocess.run(command, check=True)
        await until(tables, **{"2001:db8:7::/128": "anycast", "2001:db8:7::1/128": "local"})

    follow(netns, work)


def test_an_address_on_two_devices_stays_until_the_second_is_gone(netns: str) -> None:
    async def work(tables: Tables, stack: Stack) -> None:
        nic = pair(stack)
        stack.apply(
            messages.link_set(1, up=True),
            messages.address(1, "192.0.2.1/32"),
            messages.address(nic, "192.0.2.1/24"),
            messages.address(nic, "192.0.2.2/24"),
        )
        await until(tables, **{"192.0.2.1/32": "local", "192.0.2.2/32": "local"})
        stack.apply(messages.address(1, "192.0.2.1/32", delete=True))
        stack.apply(messages.address(nic, "192.0.2.3/24"))
        await until(tables, **{"192.0.2.1/32": "local", "192.0.2.3/32": "local"})
        stack.delete_link("nic")
        await until(tables, **{"192.0.2.1/32": None, "192.0.2.3/32": None})

    follow(netns, work)


def test_more_changes_than_can_be_told_are_all_seen(netns: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work(tables: Tables, stack: Stack) -> None:
        stack.apply(messages.link_set(1, up=True))
        wanted = [f"10.{a}.{b}.1/32" for a in range(40) for b in range(100)]
        # Without giving the follower a turn, so that the socket overflows.
        stack.apply(*(messages.address(1, one) for one in wanted))
        await until(tables, **dict.fromkeys(wanted, "local"))
        assert any("reading everything anew" in record.message for record in caplog.records)
        stack.apply(*(messages.address(1, one, delete=True) for one in wanted))
        await until(tables, **dict.fromkeys(wanted))

    follow(netns, work)


def test_devices_say_whether_they_carry(netns: str) -> None:
    async def work(tables: Tables, stack: Stack) -> None:
        nic = pair(stack)

        async def reached(*, carrier: bool, lost: bool) -> None:
            def holds() -> bool:
                row = tables.devices.get(nic)
                return row is not None and (row.carrier, row.lost) == (carrier, lost)

            await eventually(holds, timeout=WITHIN, what=f"carrier {carrier}, lost {lost}")

        await reached(carrier=True, lost=False)
        stack.apply(messages.link_set(name="far", up=False))
        await reached(carrier=False, lost=True)
        stack.apply(messages.link_set(name="far", up=True))
        await reached(carrier=True, lost=False)
        # One that was made this moment has not lost what it never had; nor is a bridge's port gone with it.
        stack.apply(messages.veth(Veth("new", bytes(5) + b"\x02"), Veth("newer", bytes(5) + b"\x04")))
        new = stack.existing("new").ifindex
        await eventually(lambda: new in tables.devices, timeout=WITHIN, what="the new device")
        row = tables.devices.get(new)
        assert row is not None and not row.carrier and not row.lost
        bridge = stack.ensure_bridge("br")
        stack.ensure_link("nic", master=bridge.ifindex)
        stack.ensure_link("nic", master=0)
        stack.delete_link("new")
        await eventually(lambda: new not in tables.devices, timeout=WITHIN, what="the device to go")
        await reached(carrier=True, lost=False)

    follow(netns, work)


def test_a_device_gone_under_an_endpoint_stays_lost_until_the_endpoint_goes(netns: str) -> None:
    async def work(tables: Tables, stack: Stack) -> None:
        nic = pair(stack)
        await eventually(lambda: nic in tables.devices, timeout=WITHIN, what="the device")
        pod = Walk().endpoint(1, "web", {}, ipv4="10.0.1.5")
        tables.endpoints.put(msgspec.structs.replace(pod, ifindex=nic))
        stack.delete_link("nic")

        def lost() -> bool:
            row = tables.devices.get(nic)
            return row is not None and row.lost

        await eventually(lost, timeout=WITHIN, what="the device to be lost")
        tables.endpoints.delete(1)
        pair(stack)
        await eventually(lambda: nic not in tables.devices, timeout=WITHIN, what="the row to go")

    follow(netns, work)


def test_link_local_addresses_have_no_rows(netns: str) -> None:
    async def work(tables: Tables, stack: Stack) -> None:
        nic = pair(stack)
        stack.apply(messages.address(nic, "fe80::7/64"), messages.address(nic, "2001:db8::7/64"))
        await until(tables, **{"2001:db8::7/128": "local"})
        assert not [row for row in tables.local_addresses if row.prefix.startswith("fe80")]

    follow(netns, work)


def test_what_is_local_in_the_table_of_a_vrf_is_the_nodes(netns: str) -> None:
    command = ["ip", "-n", netns, "link", "add", "blue", "type", "vrf", "table"]
    made = subprocess.run([*command, "4711"], capture_output=True, text=True)
    if "Unknown device type" in made.stderr:
        pytest.skip("this kernel has no VRF devices")
    assert made.returncode == 0, made.stderr

    async def work(tables: Tables, stack: Stack) -> None:
        nic = pair(stack)
        stack.apply(messages.link_set(name="blue", up=True))
        stack.ensure_link("nic", master=stack.existing("blue").ifindex)
        stack.apply(messages.address(nic, "192.0.2.1/24"), messages.address(nic, "2001:db8::1/64"))
        blue: dict[str, str | None] = {"192.0.2.1/32": "local", "192.0.2.255/32": "broadcast"}
        await until(tables, **blue, **{"2001:db8::1/128": "local"})
        # One made later, and what is local in a table of nobody's.
        subprocess.run([*command[:-4], "red", *command[-3:], "4712"], check=True)
        more = Route("198.51.100.0/24", 1, type=LOCAL, table=4712)
        other = Route("203.0.113.0/24", 1, type=LOCAL, table=4713)
        stack.apply(messages.link_set(1, up=True), messages.route(other), messages.route(more))
        await until(tables, **{"198.51.100.0/24": "local", "203.0.113.0/24": None})
        stack.delete_link("red")
        stack.delete_link("blue")
        # The address is the device's as before, and in table local again.
        await until(tables, **{"198.51.100.0/24": None, "192.0.2.1/32": "local"})

    follow(netns, work)
