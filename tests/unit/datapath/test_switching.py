"""What an endpoint is told of rows that are missing: when it is told, before what, and until when."""

from __future__ import annotations

import asyncio
from errno import EPERM

import pytest
from tests.unit.datapath.conftest import DEVICE, WEB, Node, entry, peer
from tests.unit.datapath.test_write import settled, until

from podwire.abi import structs
from podwire.abi.enums import EndpointFlags
from podwire.base.addresses import pack
from podwire.base.errors import KernelError
from podwire.state.tables import IpcacheRow, ProgressRow

ENFORCED = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
PEERS, ADDRESSES = EndpointFlags.PEERS_MISSING, EndpointFlags.ADDRESSES_MISSING
OTHER, ANOTHER = IpcacheRow("10.0.9.1/32", 99, "k8s"), IpcacheRow("10.0.9.2/32", 980, "k8s")


def flags(node: Node) -> EndpointFlags:
    return EndpointFlags(node.endpoint().flags)


def crowded(*rows: IpcacheRow) -> Node:
    """These rows, and room for one address. 980 is a peer of the policy, and of a class of its own."""
    node = Node(podwire_ipcache=1)
    node.obey(7, [entry(7, 80), entry(7, 80, peer_class=0)], [peer(7, 980)])
    for row in rows:
        node.tables.ipcache.put(row)
    node.ready()
    return node


def told(node: Node) -> list[tuple[int, tuple[str, ...], str]]:
    return [(row.endpoint, row.unknown, row.error) for row in node.tables.endpoint_failures]


def test_an_address_that_does_not_fit_flags_whom_it_matters_to() -> None:
    """980 is of a class of its own; where it is not known the world's would be taken for it."""

    async def main() -> None:
        node = crowded(OTHER)
        async with node.writer() as writer:
            await settled(writer, node, 7)
            assert flags(node) == ENFORCED and not told(node)
            node.tables.ipcache.put(IpcacheRow("10.0.9.3/32", 97, "k8s"))
            await until(writer.errors, "the failure")
            await writer.round()
            assert flags(node) == ENFORCED, "97 is as any other, and the world is: nothing is taken for wrong"
            node.tables.ipcache.put(ANOTHER)
            await until(lambda: flags(node) == ENFORCED | ADDRESSES, "the flag")
            await until(lambda: told(node), "the row that says so")
            assert told(node) == [(WEB.id, ("addresses",), "map podwire_ipcache is full at 1 entries")]
            node.tables.ipcache.delete(OTHER.prefix)
            node.tables.ipcache.delete("10.0.9.3/32")
            await until(lambda: flags(node) == ENFORCED and not told(node), "the end of it")
            assert node.kernel.maps["podwire_ipcache"].content.keys() == {pack("10.0.9.2")}

    asyncio.run(main())


@pytest.mark.parametrize("what", ["address", "prefix", "peer"])
def test_a_wrong_row_that_will_not_go_is_not_believed(what: str) -> None:
    """The kernel refuses to replace it and to remove it: whom it would mislead talks to nobody."""

    async def main() -> None:
        node = Node()
        node.obey(7, [entry(7, 80), entry(7, 80, peer_class=0)], [peer(7, 98)])
        prefix = "10.0.9.0/24" if what == "prefix" else ANOTHER.prefix
        node.tables.ipcache.put(IpcacheRow(prefix, 98, "k8s"))
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            names = {"address": "podwire_ipcache", "prefix": "podwire_ipcache_prefixes"}
            map = node.kernel.maps[names.get(what, "podwire_policy_peers")]
            before = dict(map.content)

            def refuse(step: str, key: bytes) -> None:
                if step in ("put", "delete") and key in before:
                    raise KernelError(step, EPERM)

            map.refuse = refuse
            if what == "peer":
                node.tables.policy_peers.put(peer(7, 98, 2))
            else:
                node.tables.ipcache.put(IpcacheRow(prefix, 97, "k8s"))
            await until(lambda: EndpointFlags.NOT_READY in flags(node), "the quarantine")
            assert map.content == before
            await until(lambda: told(node) and "talks to nobody" in told(node)[0][2], "the row that says so")
            map.refuse = lambda step, key: None
            await until(lambda: flags(node) == ENFORCED and not told(node), "the end of it")
            assert map.content != before

    asyncio.run(main())


def test_a_peer_that_does_not_fit_is_none_before_an_address_leads_to_it() -> None:
    async def main() -> None:
        node = Node(podwire_policy_peers=1)
        node.obey(7, [entry(7, 80), entry(7, 80, peer_class=0)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            seen: list[EndpointFlags] = []
            node.kernel.maps["podwire_ipcache"].refuse = lambda step, key: seen.append(flags(node))
            node.identity(980)
            node.tables.policy_peers.put(peer(7, 980))
            node.tables.ipcache.put(ANOTHER)
            await until(lambda: seen, "the address")
            assert seen[0] == ENFORCED | PEERS
            assert node.endpoint().policy == 7
            await until(lambda: told(node), "the row that says so")
            assert told(node)[0][1] == ("peers",)
            node.tables.policy_peers.delete((7, peer(7, 99).direction, 99))
            await until(lambda: flags(node) == ENFORCED and not told(node), "the end of it")

    asyncio.run(main())


def test_a_policy_that_is_kept_does_not_say_anything_of_identities_that_came_since() -> None:
    async def main() -> None:
        node = Node(podwire_policy=6)
        node.obey(7, [entry(7, port) for port in range(4)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            node.obey(8, [entry(8, port) for port in range(9)], [peer(8, 99)])
            await until(lambda: len(node.tables.policy_failures), "the failure")
            await writer.round()
            assert (node.endpoint().policy, flags(node)) == (7, ENFORCED), "what was in force stays"
            seen: list[EndpointFlags] = []
            node.kernel.maps["podwire_ipcache"].refuse = lambda step, key: seen.append(flags(node))
            node.identity(980)
            node.tables.ipcache.put(ANOTHER)
            await until(lambda: seen, "the address")
            assert seen[0] == ENFORCED | PEERS and node.endpoint().policy == 7
            await until(lambda: told(node), "the row that says so")
            assert "kept" in told(node)[0][2] or "full" in told(node)[0][2]
            node.obey(9, [entry(9, port) for port in range(2)], [peer(9, 99)])
            await settled(writer, node, 9)
            assert flags(node) == ENFORCED
            await until(lambda: not told(node), "the end of it")

    asyncio.run(main())


def test_a_flag_outlives_its_agent_until_everything_is_known() -> None:
    async def main() -> None:
        node = crowded(OTHER, ANOTHER)
        async with node.writer() as writer:
            await settled(writer, node, 7)
            assert flags(node) == ENFORCED | ADDRESSES
        again = Node()
        again.kernel = node.kernel
        again.obey(7, [entry(7, 80), entry(7, 80, peer_class=0)], [peer(7, 980)])
        async with again.writer() as writer:
            await asyncio.wait_for(writer.wait_realized(WEB.id), 10)
            assert flags(again) == ENFORCED | ADDRESSES, "the ipcache is not known yet"
            again.tables.ipcache.put(OTHER)
            again.ready()
            await until(lambda: writer.synced, "the writer")
            assert flags(again) == ENFORCED

    asyncio.run(main())


def test_a_class_that_lacks_an_entry_has_no_peers() -> None:
    """Its denial of port 81 does not fit: who is of it is of none, not of half a class."""

    async def main() -> None:
        node = Node(podwire_policy=3)
        node.obey(7, [entry(7, 80, peer_class=0), entry(7, 80)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            for row in (entry(7, 0, peer_class=2), entry(7, 81, peer_class=2, verdict=2)):
                node.tables.policy_entries.put(row)
            node.tables.policy_peers.put(peer(7, 980, 2))
            await until(lambda: flags(node) == ENFORCED | PEERS, "the flag")
            assert len(node.kernel.maps["podwire_policy_peers"].content) == 1
            node.tables.policy_entries.delete((7, 1, entry(7, 80).direction, 6, 80, 16))
            node.tables.policy_peers.delete((7, peer(7, 99).direction, 99))
            await until(lambda: flags(node) == ENFORCED, "the end of it")
            (raw,) = node.kernel.maps["podwire_policy_peers"].content
            assert structs.PolicyPeersKey.unpack(raw).block == 980 >> 4

    asyncio.run(main())


def test_a_row_that_cannot_be_replaced_is_removed() -> None:
    """None is better than a wrong one; as soon as the kernel takes it, it is there."""

    async def main() -> None:
        node = Node()
        node.obey(7, [entry(7, 80), entry(7, 80, peer_class=0)], [peer(7, 980)])
        node.tables.ipcache.put(OTHER)
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            table, refusing = node.kernel.maps["podwire_ipcache"], True

            def refuse(step: str, key: bytes) -> None:
                if step == "put" and refusing:
                    raise KernelError("put", EPERM)
                assert step != "delete" or ADDRESSES in flags(node), "the flag comes first"

            table.refuse = refuse
            node.tables.ipcache.put(IpcacheRow(OTHER.prefix, 980, "k8s"))
            await until(lambda: not table.content, "the wrong row to go")
            assert flags(node) == ENFORCED | ADDRESSES
            refusing = False
            await until(lambda: table.content and flags(node) == ENFORCED, "the right row")
            assert structs.IpcacheEntry.unpack(table.content[pack("10.0.9.1")]).identity == 980

    asyncio.run(main())


def test_an_endpoint_that_goes_takes_its_flags_with_it() -> None:
    async def main() -> None:
        node = crowded(OTHER, ANOTHER)
        async with node.writer() as writer:
            await settled(writer, node, 7)
            await until(lambda: told(node), "the row that says so")
            node.tables.endpoints.delete(WEB.id)
            node.tables.endpoint_policies.delete(WEB.id)
            await until(lambda: not told(node), "the row to go")
            assert DEVICE not in node.kernel.maps["podwire_devices"].content
            node.tables.progress.put(ProgressRow("policy.compute", 99, 99))
            await writer.round()
            assert DEVICE not in node.kernel.maps["podwire_devices"].content

    asyncio.run(main())


def test_a_prefix_that_goes_in_the_same_moment_is_no_answer() -> None:
    """The address that does not fit has the identity of the prefix around it, which is on its way out."""

    async def main() -> None:
        node = crowded(OTHER, IpcacheRow("10.0.9.0/24", 980, "k8s"))
        async with node.writer() as writer:
            await settled(writer, node, 7)
            assert flags(node) == ENFORCED
            prefixes, seen = node.kernel.maps["podwire_ipcache_prefixes"], []

            def see(step: str, key: bytes) -> None:
                if step == "delete":
                    seen.append(flags(node))

            prefixes.refuse = see
            node.tables.ipcache.put(ANOTHER)
            node.tables.ipcache.delete("10.0.9.0/24")
            await until(lambda: seen, "the prefix to go")
            assert seen[0] == ENFORCED | ADDRESSES

    asyncio.run(main())


def test_who_has_the_number_of_another_is_not_believed_to_be_him() -> None:
    """The policy an endpoint is kept on was asked about somebody else under this number."""

    async def main() -> None:
        node = Node(podwire_policy=6)
        node.identity(99)
        node.obey(7, [entry(7, port) for port in range(4)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            node.obey(8, [entry(8, port) for port in range(9)], [peer(8, 99)])
            await until(lambda: len(node.tables.policy_failures), "the failure")
            node.tables.policy_peers.delete((8, peer(8, 99).direction, 99))
            node.tables.identities.delete(99)
            await writer.round()
            node.identity(99)
            await until(lambda: EndpointFlags.NOT_READY in flags(node), "the quarantine")
            node.obey(9, [entry(9, 80)], [peer(9, 99)])
            await until(lambda: flags(node) == ENFORCED and node.endpoint().policy == 9, "the end of it")

    asyncio.run(main())
