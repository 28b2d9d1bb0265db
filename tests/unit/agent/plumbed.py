"""A node's attachments in memory: real tables, pools, files and writer; devices are names, maps are dicts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.unit.datapath.kernel import MemoryKernel

from podwire.agent.attachments import Attachments
from podwire.agent.interface import EndpointRequest
from podwire.agent.labeling import Labeling
from podwire.agent.registry import Registry
from podwire.base.aio import Supervised, eventually
from podwire.datapath import switching
from podwire.datapath.endpoints import Attached
from podwire.datapath.write import Writer
from podwire.ipam.pools import Pools
from podwire.model.labels import Labels
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
    """Devices as names. `hold` keeps a call waiting in its thread, `fail` and `stuck` are raised."""

    def __init__(self) -> None:
        self.devices: dict[str, tuple[str, ...]] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.waiting = threading.Event()
        self.fail: Exception | None = None  # attaching
        self.stuck: Exception | None = None  # detaching

    def attach(self, netns: str, owner: str, addresses: Sequence[str], *, interface: str) -> Attached:
        self.waiting.set()
        assert self.hold.wait(20)
        if self.fail is not None:
            raise self.fail
        self.devices[f"lxc-{owner}"] = tuple(addresses)
        return Attached(f"lxc-{owner}", 100 + len(self.devices), "02:00:00:00:00:01", "02:00:00:00:00:02")

    def adopt(self, attached: Attached, addresses: Sequence[str]) -> None:
        if self.fail is not None:
            raise self.fail
        self.devices[attached.interface] = tuple(addresses)

    def present(self) -> set[str]:
        return set(self.devices)

    linked = present

    def detach(self, interface: str) -> None:
        if self.stuck is not None:
            raise self.stuck
        self.devices.pop(interface, None)


class Typed:
    """Of `datapath.maps.Maps` what attachments ask: no device is there, no connection is remembered."""

    def __init__(self) -> None:
        self.stuck: Exception | None = None  # raised by who asks for connections

    def __getitem__(self, name: str) -> Any:
        return self

    def __contains__(self, key: object) -> bool:
        return False

    def snapshot(self) -> tuple[bytes, bytes]:
        if self.stuck is not None:
            raise self.stuck
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
        self.kernel = MemoryKernel()
        self.typed = Typed()
        self.known = True  # whether endpoints get identities
        self.writer = Writer(self.tables, self.kernel, "n1")
        parts: Any = (self.plumbing, self.typed, self.writer, self.pools, self.registry)
        self.expected: list[Labels] = []  # labels for which an identity was asked for ahead
        labeling = Labeling(self.tables, "default", self.expected.append)
        self.attachments = Attachments(self.tables, *parts, labeling)
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
                    if row is not None and not row.identity and self.known:
                        self.tables.identities.put(IdentityRow(300, row.labels, "cluster"))
                        revision = self.tables.identities.revision
                        self.tables.progress.put(ProgressRow("policy.compute", revision, 0))
                        self.tables.endpoint_policies.put(EndpointPolicyRow(row.id, 0, False, False, 1))
                        self.tables.endpoints.put(msgspec.structs.replace(row, identity=300))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervised]:
        async with Supervised("test") as group:
            group.start("write", self.writer.run())
            group.start("identify", self.identify())
            yield group

    def stick(self, step: str, error: Exception | None) -> None:
        """Let a step of detaching fail from now on."""
        (self.plumbing if step == "device" else self.typed).stuck = error

    def kernel_is_empty(self) -> bool:
        return not any(self.kernel.maps[name].content for name in switching.MAPS)

    def remembered(self, number: int) -> str:
        """The state of an endpoint as its file has it; empty = it has none."""
        return next((row.state for row in self.registry.load() if row.id == number), "")

    async def held_up(self, group: asyncio.TaskGroup) -> asyncio.Task[EndpointRow]:
        """The attach of pod `a`, whose device is being made until `plumbing.hold` is set."""
        self.plumbing.hold.clear()
        attach = group.create_task(self.attachments.attach(self.request("a")))
        await eventually(self.plumbing.waiting.is_set, timeout=10, what="its thread")
        return attach
