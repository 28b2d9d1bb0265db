"""Filters become links when nobody is being attached."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.unit.agent.node import endpoint

from podwire.agent.links import Links
from podwire.base.aio import Supervised, eventually
from podwire.base.errors import KernelError
from podwire.state.tables import Tables

SOON, NEVER = 0.001, 3600.0


class MemoryPods:
    """`waiting` are filters. `hold` keeps a call waiting in its thread; `broken` cannot be bound."""

    def __init__(self, *waiting: str) -> None:
        self.waiting = list(waiting)
        self.bound: list[str] = []
        self.broken: set[str] = set()
        self.unlisted = 0  # times that they cannot be listed
        self.tried: list[str] = []
        self.hold = threading.Event()
        self.hold.set()

    def unbound(self) -> list[str]:
        if self.unlisted:
            self.unlisted -= 1
            raise KernelError("look at a filter", 12)
        return list(self.waiting)

    def bind(self, pin: str) -> None:
        self.tried.append(pin)
        assert self.hold.wait(20)
        if pin in self.broken:
            raise KernelError("make a link", 12) if len(self.tried) % 2 else FileNotFoundError(pin)
        self.waiting.remove(pin)
        self.bound.append(pin)


class Node:
    def __init__(
        self, *waiting: str, quiet: float = SOON, latest: float = NEVER, again: float = NEVER
    ) -> None:
        self.tables = Tables()
        self.pods = MemoryPods(*waiting)
        self.links = Links(self.pods, self.tables.endpoints, quiet=quiet, latest=latest, again=again)

    def attached(self, number: int) -> None:
        self.tables.endpoints.put(endpoint(number, f"web-{number}", f"10.0.1.{number}"))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with Supervised("test") as group:
            group.start("make links of filters", self.links.run())
            yield


async def until(node: Node, *pins: str) -> None:
    await eventually(lambda: node.pods.bound == list(pins), timeout=20, what=f"{pins} to be bound")


def test_what_an_earlier_agent_left_and_what_is_attached_later() -> None:
    async def main() -> None:
        node = Node("a")
        async with node.running():
            node.attached(1)
            await until(node, "a")
            node.pods.waiting.append("b")
            node.attached(2)
            await until(node, "a", "b")

    asyncio.run(main())


def test_one_that_comes_while_others_are_bound_is_bound_as_well() -> None:
    """Its change was seen before its filter was listed."""

    async def main() -> None:
        node = Node("a", "b")
        node.pods.hold.clear()
        async with node.running():
            node.attached(1)
            await eventually(lambda: node.pods.tried, timeout=20, what="the first")
            node.pods.waiting.append("c")
            node.attached(2)
            node.pods.hold.set()
            await until(node, "a", "b", "c")

    asyncio.run(main())


def test_while_pods_are_attached_none_is_bound_but_for_so_long_only() -> None:
    async def main() -> None:
        busy = Node("a", quiet=NEVER)
        async with busy.running():
            for number in range(1, 50):
                busy.attached(number)
                await asyncio.sleep(0)
            assert not busy.pods.tried
        late = Node("a", quiet=NEVER, latest=SOON)
        async with late.running():
            late.attached(1)
            await until(late, "a")

    asyncio.run(main())


def test_one_that_fails_keeps_nobody_else_and_is_tried_again() -> None:
    async def main() -> None:
        node = Node("a", "b", again=SOON)
        node.pods.broken = {"a"}
        async with node.running():
            node.attached(1)
            await until(node, "b")
            await eventually(lambda: node.pods.tried.count("a") > 2, timeout=20, what="more tries")
            assert list(node.links.failed) == ["a"]
            node.pods.broken = set()
            await until(node, "b", "a")
            await eventually(lambda: not node.links.failed, timeout=20, what="nothing to have failed")

    asyncio.run(main())


def test_that_they_cannot_be_listed_ends_nothing() -> None:
    async def main() -> None:
        node = Node("a", again=SOON)
        node.pods.unlisted = 3
        async with node.running():
            node.attached(1)
            await until(node, "a")
            await eventually(lambda: not node.links.failed, timeout=20, what="nothing to have failed")

    asyncio.run(main())
