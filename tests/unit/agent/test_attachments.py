"""Pods attached on maps and plumbing in memory, each step failing or being given up in turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.datapath.kernel import MemoryKernel

from podwire.agent.attachments import Attachments
from podwire.agent.interface import EndpointRequest
from podwire.agent.labeling import Labeling
from podwire.agent.registry import Registry
from podwire.base.aio import Supervised, eventually
from podwire.base.errors import Conflict, NetworkError, StorageError
from podwire.datapath.endpoints import Attached
from podwire.datapath.write import Writer
from podwire.ipam.pools import Pools
from podwire.state.table import Watch
from podwire.state.tables import (
    EndpointPolicyRow,
    EndpointRow,
    IdentityRow,
    NamespaceRow,
    PodRow,
    ProgressRow,
    Tables,
)


class MemoryPlumbing:
    """Devices as names. `hold` keeps a call waiting in its thread, `fail` is raised by the next one."""

    def __init__(self) -> None:
        self.devices: dict[str, tuple[str, ...]] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.waiting = threading.Event()
        self.fail: Exception | None = None

    def attach(self, netns: str, owner: str, addresses: Sequence[str], *, interface: str) -> Attached:
        self.waiting.set()
        assert self.hold.wait(20)
        if self.fail is not None:
            raise self.fail
        self.devices[f"lxc-{owner}"] = tuple(addresses)
        return Attached(f"lxc-{owner}", 100 + len(self.devices), "02:00:00:00:00:01", "02:00:00:00:00:02")

    def detach(self, interface: str) -> None:
        self.devices.pop(interface, None)


class Typed:
    """Of `datapath.maps.Maps` what attachments ask: no device is there, no connection is remembered."""

    def __getitem__(self, name: str) -> Any:
        return self

    def __contains__(self, key: object) -> bool:
        return False

    def snapshot(self) -> tuple[bytes, bytes]:
        return b"", b""

    def untyped(self) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def delete_many(self, keys: Any) -> int:
        return len(list(keys))


class Node:
    def __init__(self, directory: Path) -> None:
        self.tables = Tables()
        self.plumbing = MemoryPlumbing()
        self.pools = Pools(["10.0.1.0/24"], [])
        self.registry = Registry(directory / "endpoints")
        self.writer = Writer(self.tables, MemoryKernel(), "n1")
        parts: Any = (self.plumbing, Typed(), self.writer, self.pools, self.registry)
        self.attachments = Attachments(self.tables, *parts, Labeling(self.tables, "default"))
        self.tables.namespaces.put(NamespaceRow("prod", {}))
        for name in ("a", "b"):
            self.tables.pods.put(
                PodRow("prod", name, name, "n1", (), {"app": name}, "default", False, "Pending", ())
            )

    def request(self, pod: str) -> EndpointRequest:
        return EndpointRequest(
            container_id=f"c-{pod}", netns="/n", interface="eth0", namespace="prod", pod=pod, ipv4="10.0.1.5"
        )

    async def identify(self) -> None:
        """What identity.allocate and policy.compute do."""
        with Watch(self.tables.endpoints) as watch:
            while True:
                for change in (await watch.next())[0]:
                    row = change.new
                    if row is not None and not row.identity:
                        self.tables.identities.put(IdentityRow(300, row.labels, "cluster"))
                        revision = self.tables.identities.revision
                        self.tables.progress.put(ProgressRow("policy.compute", revision, 0))
                        self.tables.endpoint_policies.put(EndpointPolicyRow(row.id, 0, False, False, 1))
                        self.tables.endpoints.put(msgspec.structs.replace(row, identity=300))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with Supervised("test") as group:
            group.start("write", self.writer.run())
            group.start("identify", self.identify())
            yield

    async def held_up(self, group: asyncio.TaskGroup) -> asyncio.Task[EndpointRow]:
        """The attach of pod `a`, whose device is being made until `plumbing.hold` is set."""
        self.plumbing.hold.clear()
        attach = group.create_task(self.attachments.attach(self.request("a")))
        await eventually(self.plumbing.waiting.is_set, timeout=10, what="its thread")
        return attach


def test_two_attaches_of_one_address_at_once(tmp_path: Path) -> None:
    """The second is refused while the first one's device is still being made."""

    async def main() -> None:
        node = Node(tmp_path)
        async with node.running(), asyncio.TaskGroup() as group:
            first = await node.held_up(group)
            with pytest.raises(Conflict, match="prod/a"):
                await node.attachments.attach(node.request("b"))
            node.plumbing.hold.set()
            assert (await first).state == "ready"
            with pytest.raises(Conflict, match="prod/a"):
                await node.attachments.attach(node.request("b"))
            await node.attachments.detach("c-a")
            assert (await node.attachments.attach(node.request("b"))).pod == "b"
            assert list(node.plumbing.devices) == ["lxc-c-b"]

    asyncio.run(main())


def test_an_attach_that_is_given_up_while_its_device_is_made(tmp_path: Path) -> None:
    """Its thread is waited for, what it made goes, and the address is free."""

    async def main() -> None:
        node = Node(tmp_path)
        async with node.running(), asyncio.TaskGroup() as group:
            first = await node.held_up(group)
            first.cancel()
            node.plumbing.hold.set()
            await asyncio.wait((first,))
            assert first.cancelled() and not node.plumbing.devices and not len(node.tables.endpoints)
            assert (await node.attachments.attach(node.request("b"))).pod == "b"

    asyncio.run(main())


@pytest.mark.parametrize("step", ["plumb", "save"])
def test_a_step_that_fails_leaves_nothing(tmp_path: Path, step: str) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        async with node.running():
            if step == "plumb":
                node.plumbing.fail = NetworkError("no device today")
                with pytest.raises(NetworkError):
                    await node.attachments.attach(node.request("a"))
                node.plumbing.fail = None
            else:
                node.registry.directory.rmdir()
                with pytest.raises(StorageError):
                    await node.attachments.attach(node.request("a"))
                node.registry.directory.mkdir()
            assert not node.plumbing.devices and not len(node.tables.endpoints)
            assert (await node.attachments.attach(node.request("b"))).state == "ready"

    asyncio.run(main())
