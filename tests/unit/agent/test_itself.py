"""A node whose object changes, on a kernel that notes what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from podwire.agent.itself import Itself
from podwire.base.aio import Backoff, Supervised, eventually
from podwire.base.config import AgentConfig
from podwire.base.errors import NetworkError
from podwire.ipam.pools import Pools
from podwire.model.cluster import OWN
from podwire.state.reconcile import Reconciler
from podwire.state.tables import LocalAddressRow, NodeRow, Tables

ME = NodeRow("n1", ("192.0.2.1",), ("10.0.1.0/24",), {}, True, ("10.0.1.254",))
MOVED = msgspec.structs.replace(ME, addresses=("192.0.2.9",))
ELSEWHERE = msgspec.structs.replace(ME, pod_cidrs=("10.0.7.0/24",), router_addresses=("10.0.7.254",))


class Told:
    """Of `agent.kernel.Kernel` what is told; `refusals` are the next steps that fail."""

    def __init__(self) -> None:
        self.config = AgentConfig(node_name="n1")
        self.taken_over = asyncio.Event()
        self.become_: list[tuple[NodeRow, tuple[str, ...]]] = []
        self.refusals = 0

    def become(self, me: NodeRow, gone: Sequence[str] = ()) -> None:
        if self.refusals:
            self.refusals -= 1
            raise NetworkError("no buffers")
        self.become_.append((me, tuple(gone)))


class Routes:
    """A target that counts how often it is asked for a row's routes."""

    name = "routes"

    def __init__(self) -> None:
        self.asked = 0

    def load(self) -> dict[Any, Any]:
        return {}

    def items(self, row: NodeRow) -> dict[Any, Any]:
        self.asked += 1
        return dict.fromkeys(row.pod_cidrs, self.asked)

    def write(self, items: Any) -> dict[Any, Any]:
        return {}

    def remove(self, keys: Any) -> dict[Any, Any]:
        return {}


class Node:
    def __init__(self) -> None:
        self.tables = Tables()
        self.tables.nodes.put(ME)
        self.kernel = Told()
        self.pools = Pools(ME.pod_cidrs, ME.router_addresses)
        self.target = Routes()
        self.routes: Reconciler[NodeRow] = Reconciler(self.tables.nodes, self.target)
        parts: Any = (self.kernel, self.pools, self.routes)
        self.itself = Itself(self.tables, *parts, ME, backoff=Backoff(0.001, 0.01))


def follow(work: Callable[[Node], Awaitable[None]], *, taken_over: bool = True) -> None:
    async def run() -> None:
        node = Node()
        if taken_over:
            node.kernel.taken_over.set()
        async with Supervised("test") as group:
            group.start("keep routes", node.routes.run())
            group.start("follow", node.itself.run())
            await work(node)

    asyncio.run(run())


async def is_now(node: Node, row: NodeRow) -> None:
    await eventually(lambda: node.itself.me == row, timeout=20, what=f"the node to be {row}")


def test_another_address_is_told_to_the_kernel_and_the_routes_are_asked_for_anew() -> None:
    async def work(node: Node) -> None:
        await eventually(lambda: node.target.asked, timeout=20, what="routes")
        node.tables.nodes.put(MOVED)
        await is_now(node, MOVED)
        assert node.kernel.become_ == [(MOVED, ())]
        assert node.target.asked >= 2
        assert node.itself.problem() == ""
        labelled = msgspec.structs.replace(MOVED, labels={"a": "b"})
        node.tables.nodes.put(labelled)
        await is_now(node, labelled)
        assert len(node.kernel.become_) == 1, "labels are nobody's constants"

    follow(work)


def test_what_the_kernel_refuses_is_told_and_tried_again() -> None:
    async def work(node: Node) -> None:
        node.kernel.refusals = 10**9
        node.tables.nodes.put(MOVED)
        await eventually(node.itself.problem, timeout=20, what="a problem")
        assert "this node is still what its object was before: no buffers" in node.itself.problem()
        node.kernel.refusals = 0
        await is_now(node, MOVED)
        assert node.itself.problem() == ""

    follow(work)


def test_a_change_taken_back_while_it_was_refused_is_taken_back_in_the_kernel() -> None:
    """Some of its steps may have been done."""

    async def work(node: Node) -> None:
        node.kernel.refusals = 10**9
        node.tables.nodes.put(MOVED)
        await eventually(node.itself.problem, timeout=20, what="a problem")
        node.tables.nodes.put(ME)
        node.kernel.refusals = 0
        await eventually(lambda: node.kernel.become_, timeout=20, what="the kernel to be told")
        assert node.kernel.become_[-1][0] == ME

    follow(work)


def test_a_router_address_of_a_change_that_was_refused_goes_when_it_is_taken_back() -> None:
    """The kernel may have got it before the step that failed."""

    async def work(node: Node) -> None:
        node.kernel.refusals = 10**9
        node.tables.nodes.put(ELSEWHERE)
        await eventually(node.itself.problem, timeout=20, what="a problem")
        node.tables.nodes.put(ME)
        node.kernel.refusals = 0
        await eventually(lambda: node.kernel.become_, timeout=20, what="the kernel to be told")
        assert node.kernel.become_[-1] == (ME, ("10.0.7.254",))
        node.tables.nodes.put(MOVED)
        await is_now(node, MOVED)
        assert node.kernel.become_[-1] == (MOVED, ()), "what is gone is gone"

    follow(work)


def test_an_object_that_says_nothing_changes_nothing_and_is_named() -> None:
    async def work(node: Node) -> None:
        node.tables.nodes.put(msgspec.structs.replace(ME, addresses=(), pod_cidrs=()))
        await eventually(node.itself.problem, timeout=20, what="a problem")
        assert node.itself.problem() == (
            "this node's object names no addresses and no pod CIDRs; going on as before"
        )
        node.tables.nodes.delete((OWN, "n1"))
        await eventually(lambda: "no object" in node.itself.problem(), timeout=20, what="the other problem")
        node.tables.nodes.put(ME)
        await eventually(lambda: not node.itself.problem(), timeout=20, what="all right")
        assert not node.kernel.become_

    follow(work)


def test_another_pod_cidr_is_for_new_pods_and_the_old_ones_are_named() -> None:
    async def work(node: Node) -> None:
        old = node.pools.allocate("prod/web").ipv4
        node.tables.nodes.put(ELSEWHERE)
        await is_now(node, ELSEWHERE)
        assert node.kernel.become_ == [(ELSEWHERE, ("10.0.1.254",))]
        assert "1 pods have addresses of 10.0.1.0/24" in node.itself.problem()
        assert node.pools.allocate("prod/new").ipv4 == "10.0.7.1"
        node.pools.release(old)
        assert node.itself.problem() == ""

    follow(work)


def test_an_address_that_no_device_has_is_named() -> None:
    async def work(node: Node) -> None:
        node.tables.local_addresses.put(LocalAddressRow("192.0.2.1/32", "local"))
        node.tables.local_addresses.mark_all_ready()
        assert node.itself.problem() == ""
        node.tables.nodes.put(MOVED)
        await is_now(node, MOVED)
        assert node.itself.problem() == "the object's address 192.0.2.9 is on no device of this node"

    follow(work)


def test_nothing_takes_the_place_of_an_earlier_agents_programs_before_its_time() -> None:
    async def work(node: Node) -> None:
        await eventually(lambda: node.target.asked, timeout=20, what="routes")
        node.tables.nodes.put(MOVED)
        asked = node.target.asked
        await eventually(lambda: node.target.asked > asked, timeout=20, what="the others to have seen it")
        assert not node.kernel.become_
        node.kernel.taken_over.set()
        await is_now(node, MOVED)

    follow(work, taken_over=False)
