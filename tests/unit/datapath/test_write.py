"""The writer on maps in memory, each step of the kernel failing in turn."""

from __future__ import annotations

import asyncio
import threading
from errno import EPERM

import msgspec
import pytest
from tests.unit.datapath.conftest import WEB, Node, entry, peer

from podwire.abi import structs
from podwire.base.aio import eventually
from podwire.base.errors import KernelError
from podwire.datapath.flush import IN_A_THREAD
from podwire.datapath.write import Writer
from podwire.state.tables import BackendRow, FrontendRow, IpcacheRow

BACKEND = BackendRow(1, "10.0.1.9", 80, 6, "active")
FRONTEND = FrontendRow(
    "10.96.0.1", 80, 6, "default", "web", "http", "ClusterIP", 1, 1, (1,), places=(("10.0.1.9", 80),)
)


async def until(condition: object, what: str) -> None:
    assert callable(condition)
    await eventually(condition, timeout=10, what=what, interval=0.002)


async def settled(writer: Writer, node: Node, policy: int) -> None:
    await asyncio.wait_for(writer.wait_realized(WEB.id), 10)
    await until(lambda: writer.synced, "the writer")
    assert node.endpoint().policy == policy


def many(policy: int, count: int) -> Node:
    node = Node()
    node.obey(policy, [entry(policy, port) for port in range(count)], [peer(policy, 99)])
    node.ready()
    return node


def test_that_no_policy_failed_is_said_when_all_are_in_the_kernel_and_not_before() -> None:
    async def main() -> None:
        node = Node()
        told = (node.tables.policy_failures, node.tables.endpoint_failures)
        others = [table for table in node.tables if table not in told]
        async with node.writer() as writer:
            node.obey(7, [entry(7, 80)], [peer(7, 99)])
            await asyncio.wait_for(writer.wait_realized(WEB.id), 10)
            assert not any(table.ready for table in told), "others' policies may still come"
            for table in others:
                table.mark_all_ready()
            await until(lambda: all(table.ready for table in told), "what failed to be known")
            assert writer.synced

    asyncio.run(main())


def test_a_full_policy_map_keeps_what_is_in_force() -> None:
    async def main() -> None:
        node = Node(podwire_policy=8)
        node.ready()
        async with node.writer() as writer:
            node.obey(7, [entry(7, port) for port in range(4)], [peer(7, 99)])
            await settled(writer, node, 7)
            node.obey(8, [entry(8, port) for port in range(9)], [peer(8, 99)])
            await until(lambda: len(node.tables.policy_failures), "the failure")
            assert node.endpoint().policy == 7
            node.obey(9, [entry(9, port) for port in range(6)], [peer(9, 99)])
            await settled(writer, node, 9)
            await until(lambda: not len(node.tables.policy_failures), "its end")

    asyncio.run(main())


def test_growth_that_fails_midway_with_endpoints_due() -> None:
    """The endpoint waits on the policy it has, and is switched when there is room after all."""

    async def main() -> None:
        node = Node(podwire_policy=8)
        node.ready()
        can_grow = False
        bigger = node.kernel.bigger
        asked: list[int] = []
        node.kernel.bigger = lambda name, entries: (  # type: ignore[method-assign]
            asked.append(threading.get_ident()) or (bigger(name, entries) if can_grow else None)  # type: ignore[func-returns-value]
        )
        async with node.writer(grow=True) as writer:
            node.obey(7, [entry(7, port) for port in range(4)], [peer(7, 99)])
            await settled(writer, node, 7)
            node.obey(8, [entry(8, port) for port in range(9)], [peer(8, 99)])
            await until(lambda: len(asked) > 1, "two tries to grow")
            assert node.endpoint().policy == 7 and len(node.tables.policy_failures) == 1
            can_grow = True
            await settled(writer, node, 8)
            assert not writer.errors()
            assert threading.get_ident() not in asked, "growing loads programs: never on the loop"

    asyncio.run(main())


@pytest.mark.holds_the_loop("what a thread wrote is still taken in at once: 0.1 s for this many")
def test_many_entries_are_written_in_a_thread_and_taken_in_on_the_loop() -> None:
    """What status asks for is asked all the time meanwhile."""

    async def main() -> None:
        node = many(7, 3 * IN_A_THREAD)
        async with node.writer() as writer:
            while writer.realized(WEB.id) is None:
                writer.errors()
                writer.usage()
                await asyncio.sleep(0)
            assert writer.usage()["podwire_policy"] == (3 * IN_A_THREAD, 1 << 16)
            assert threading.get_ident() not in node.kernel.maps["podwire_policy"].threads

    asyncio.run(main())


def test_cancelled_while_its_thread_writes() -> None:
    """The maps are closed when the thread is done, not under it; what it wrote counts for connections."""

    async def main() -> None:
        node = many(7, 3 * IN_A_THREAD)
        writing, go_on = threading.Event(), threading.Event()

        def refuse(step: str, key: bytes) -> None:
            writing.set()
            assert go_on.wait(20)

        async with node.writer() as writer:
            node.kernel.maps["podwire_policy"].refuse = refuse
            await until(writing.is_set, "the thread")
            # The group is left, so the writer is cancelled, in its thread; then the thread is let go on.
            asyncio.get_running_loop().call_soon(go_on.set)
        assert not writer.synced
        assert len(node.kernel.maps["podwire_policy"].content) == 3 * IN_A_THREAD
        assert node.epochs()[0] > 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["podwire_policy", "podwire_policy_peers", "podwire_ipcache", "podwire_devices"]
)
@pytest.mark.parametrize("step", ["put", "delete"])
def test_a_refused_step_is_tried_again(name: str, step: str) -> None:
    """One refusal after the other, of every map: in the end the maps are as the tables say."""

    async def main() -> None:
        node = Node()
        node.tables.ipcache.put(IpcacheRow("10.0.9.1/32", 99, "k8s"))
        node.obey(7, [entry(7, port) for port in range(4)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            left = 5

            def refuse(done: str, key: bytes) -> None:
                nonlocal left
                if done == step and left:
                    left -= 1
                    raise KernelError(f"{step} an entry of {name}", EPERM)

            node.kernel.maps[name].refuse = refuse
            node.tables.ipcache.replace([IpcacheRow("10.0.9.2/32", 99, "k8s")])
            node.obey(8, [entry(8, port) for port in range(4)], [peer(8, 99)])
            if name == "podwire_devices" and step == "delete":
                node.tables.endpoints.delete(WEB.id)
                node.tables.endpoint_policies.delete(WEB.id)
                gone = node.kernel.maps["podwire_devices"].content
                await until(lambda: not gone, "the endpoint to go")
            else:
                await settled(writer, node, 8)
            await until(lambda: not left, "all refusals")
            await until(lambda: not writer.errors() and not writer._unfinished(), "the end of failures")
            assert len(node.kernel.maps["podwire_policy"].content) == 4
            assert len(node.kernel.maps["podwire_policy_peers"].content) == 1
            assert len(node.kernel.maps["podwire_ipcache"].content) == 1

    asyncio.run(main())


def test_entries_stay_while_what_points_at_them_could_not_be_removed() -> None:
    """A row of a peer that the kernel keeps must not find a class without its denials."""

    async def main() -> None:
        node = Node()
        node.obey(7, [entry(7, 80), entry(7, 81, verdict=2)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            refusing, refusals = True, 0

            def refuse(step: str, key: bytes) -> None:
                nonlocal refusals
                if step == "delete" and refusing:
                    refusals += 1
                    raise KernelError("delete", EPERM)

            node.kernel.maps["podwire_policy_peers"].refuse = refuse
            node.obey(8, [entry(8, 80)], [peer(8, 99)])
            await settled(writer, node, 8)
            await until(lambda: refusals > 2, "several refusals")
            assert len(node.kernel.maps["podwire_policy"].content) == 3
            refusing = False
            await until(lambda: len(node.kernel.maps["podwire_policy"].content) == 1, "the old entries to go")

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["podwire_backends", "podwire_slots", "podwire_rev_nat", "podwire_frontends"]
)
def test_a_service_row_that_cannot_be_replaced_is_removed(name: str) -> None:
    """Its number or address is another's by now: a flow would go to a backend that is none of its Service."""
    other = msgspec.structs.replace(FRONTEND, address="10.96.0.2")

    async def main() -> None:
        node = Node()
        node.tables.backends.put(BACKEND)
        node.tables.frontends.put(FRONTEND)
        node.ready()

        def refuse(step: str, key: bytes) -> None:
            if step == "put" and key in before:
                raise KernelError("put", EPERM)

        async with node.writer() as writer:
            map = node.kernel.maps[name]
            await until(lambda: writer.synced and map.content, "the rows")
            before = dict(map.content)
            map.refuse = refuse
            if name == "podwire_backends":
                node.tables.backends.put(msgspec.structs.replace(BACKEND, address="10.0.1.10"))
            elif name == "podwire_slots":
                node.tables.frontends.put(msgspec.structs.replace(FRONTEND, places=(("10.0.1.10", 80),)))
            elif name == "podwire_frontends":
                node.tables.frontends.put(msgspec.structs.replace(FRONTEND, set=2))
            else:
                node.tables.frontends.replace([other])
            await until(lambda: not before.keys() & map.content.keys(), "the end of the stale row")
            map.refuse = lambda step, key: None
            await until(lambda: not writer.errors() and before.keys() <= map.content.keys(), "the new row")
            assert map.content != before

    asyncio.run(main())


def test_each_epoch_is_bumped_for_its_own_maps_and_neither_is_lost() -> None:
    async def main() -> None:
        node = Node()
        node.obey(7, [entry(7, 80)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            policy, service = node.epochs()
            node.tables.backends.put(BACKEND)
            await until(lambda: node.epochs() == (policy, service + 1), "the backend")
            node.tables.frontends.put(FRONTEND)  # the set, the number and the address: one round
            await until(lambda: node.epochs() == (policy, service + 2), "the frontend")
            node.tables.ipcache.put(IpcacheRow("10.0.9.1/32", 99, "k8s"))
            await until(lambda: node.epochs() == (policy + 1, service + 2), "the address")
            node.tables.frontends.delete((FRONTEND.address, 80, 6))
            await until(lambda: node.epochs() == (policy + 1, service + 3), "the frontend gone")
            assert not node.kernel.maps["podwire_slots"].content

    asyncio.run(main())


def test_an_epoch_that_is_refused_is_bumped_later() -> None:
    async def main() -> None:
        node = Node()
        node.obey(7, [entry(7, 80)], [peer(7, 99)])
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            before = node.epochs()
            left = 3

            def refuse(step: str, key: bytes) -> None:
                nonlocal left
                if step == "put" and left:
                    left -= 1
                    raise KernelError("put", EPERM)

            node.kernel.maps["podwire_state"].refuse = refuse
            node.tables.ipcache.put(IpcacheRow("10.0.9.1/32", 99, "k8s"))
            await until(lambda: node.epochs()[0] > before[0], "the epoch")
            assert not left

    asyncio.run(main())


def test_a_row_that_stays_refused_does_not_have_connections_asked_anew_each_time() -> None:
    async def main() -> None:
        node = Node(podwire_ipcache=1)
        node.obey(7, [entry(7, 80)], [peer(7, 99)])
        node.tables.ipcache.put(IpcacheRow("10.0.9.1/32", 99, "k8s"))
        node.ready()
        async with node.writer() as writer:
            await settled(writer, node, 7)
            node.tables.ipcache.put(IpcacheRow("10.0.9.2/32", 99, "k8s"))
            await until(writer.errors, "the failure")
            tries = 0

            def count(step: str, key: bytes) -> None:
                nonlocal tries
                tries += step == "put"

            before = node.epochs()
            node.kernel.maps["podwire_ipcache"].refuse = count
            await until(lambda: tries > 5, "more tries")
            assert node.epochs() == before

    asyncio.run(main())


def test_a_policy_that_comes_while_much_is_noted_is_not_switched_to_before_it_is_written() -> None:
    """Others have turns then: the tables are further than what the writer took of them."""

    async def main() -> None:
        node = Node()
        node.obey(7, [entry(7, 80)], [peer(7, 99)])
        node.ready()
        unwritten: list[int] = []

        def look(step: str, key: bytes) -> None:
            written = {
                structs.PolicyKey.unpack(one).policy for one in node.kernel.maps["podwire_policy"].content
            }
            policy = node.endpoint().policy
            if policy and policy not in written:
                unwritten.append(policy)

        async with node.writer() as writer:
            await settled(writer, node, 7)
            node.kernel.maps["podwire_state"].refuse = look  # asked as a round ends
            for number in range(8, 60):
                node.obey(number, [entry(number, 80)], [peer(number, 99)])
                node.tables.ipcache.put(IpcacheRow(f"10.0.9.{number}/32", 99, "k8s"))
                node.tables.backends.put(msgspec.structs.replace(BACKEND, id=number))
                await asyncio.sleep(0)
            await settled(writer, node, 59)
            assert not unwritten

    asyncio.run(main())
