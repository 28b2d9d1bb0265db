"""Pods attached on maps and plumbing in memory, each step failing or being given up in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.agent.plumbed import Node
from tests.unit.datapath.kernel import refused

from podwire.agent import attachments
from podwire.base.aio import eventually
from podwire.base.errors import Conflict, NetworkError, StorageError, Unreachable
from podwire.datapath import switching


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


def test_the_identity_is_asked_for_while_the_device_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        async with node.running(), asyncio.TaskGroup() as group:
            first = await node.held_up(group)
            assert [labels[0] for labels in node.expected] == ["k8s:app=a"]
            node.plumbing.hold.set()
            await first

    asyncio.run(main())


STEPS = ("the pod is known", "plumb", "adopt", "save", "identity", "kernel")


def make_fail(node: Node, step: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Let `step` of attaching pod `a` fail; what ends that."""
    monkeypatch.setattr(attachments, "POD_KNOWN_WITHIN", 0.05)
    monkeypatch.setattr(attachments, "REALIZED_WITHIN", 0.05)
    match step:
        case "the pod is known":
            pod = node.tables.pods.delete(("prod", "a"))
            assert pod is not None
            return lambda: node.tables.pods.put(pod)
        case "plumb" | "adopt":
            node.plumbing.fail = NetworkError("no device today")
            return lambda: setattr(node.plumbing, "fail", None)
        case "save":
            node.registry.directory.rmdir()
            return node.registry.directory.mkdir
        case "identity":
            node.known = False
            return lambda: setattr(node, "known", True)
        case _:
            node.kernel.maps[switching.BY_DEVICE].refuse = refused("put", 1000)
            return lambda: setattr(node.kernel.maps[switching.BY_DEVICE], "refuse", lambda step, key: None)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_leaves_nothing(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever comes next has the address, also the same pod."""

    async def main() -> None:
        node = Node(tmp_path)
        request = node.request("a")
        if step == "adopt":
            request = msgspec.structs.replace(request, host_interface="lxc9", ifindex=9)
        async with node.running():
            await eventually(lambda: switching.BY_DEVICE in node.kernel.maps, timeout=10, what="the writer")
            with monkeypatch.context() as patch:
                mend = make_fail(node, step, patch)
                with pytest.raises((NetworkError, StorageError, Unreachable)):
                    await node.attachments.attach(request)
                mend()
            assert not node.plumbing.devices and not len(node.tables.endpoints)
            assert not list(node.registry.directory.iterdir())
            await eventually(node.kernel_is_empty, timeout=10, what="no row in the kernel")
            for pod in ("b", "a"):
                assert (await node.attachments.attach(node.request(pod))).state == "ready"
                await node.attachments.detach(f"c-{pod}")
            assert not node.plumbing.devices and not node.pools.allocations()

    asyncio.run(main())
