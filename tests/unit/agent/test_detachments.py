"""Pods detached, each step failing in turn; what an agent remembers, and what the next one finds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.unit.agent.plumbed import Node
from tests.unit.datapath.kernel import refused

from podwire.agent import attachments
from podwire.base.aio import eventually
from podwire.base.errors import Conflict, NetworkError, NotFound, StorageError, Unreachable
from podwire.datapath import switching
from podwire.state.tables import EndpointPolicyRow, EndpointRow, LocalAddressRow


@pytest.mark.parametrize("step", ["device", "connections"])
@pytest.mark.parametrize("by", ["itself", "detach", "attach"])
def test_what_cannot_be_removed_keeps_its_address_and_is_tried_again(
    tmp_path: Path, step: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "REMOVE_AGAIN", 0.01 if by == "itself" else 3600.0)

    async def main() -> None:
        node = Node(tmp_path)
        given = node.pools.allocate("prod/a").ipv4
        async with node.running() as group:
            group.start("remove what is left", node.attachments.finish())
            row = await node.attachments.attach(msgspec.structs.replace(node.request("a"), ipv4=given))
            node.stick(step, NetworkError("not now"))
            with pytest.raises(NetworkError):
                await node.attachments.detach("c-a")
            assert row.id not in node.tables.endpoints
            with pytest.raises(Conflict, match="prod/a"):
                await node.attachments.attach(msgspec.structs.replace(node.request("b"), ipv4=given))
            with pytest.raises(Conflict, match="prod/a"):
                await node.attachments.release(given)
            assert given in node.pools.allocations()
            node.stick(step, None)
            if by == "detach":
                await node.attachments.detach("c-a")
            elif by == "attach":
                assert (await node.attachments.attach(node.request("a"))).id != row.id
                await node.attachments.detach("c-a")
            await eventually(lambda: not node.pools.allocations(), timeout=10, what="the address to be free")
            assert not node.plumbing.devices
            with pytest.raises(NotFound):
                await node.attachments.detach("c-a")

    asyncio.run(main())


def test_an_attach_that_cannot_be_undone_says_what_failed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "REMOVE_AGAIN", 0.01)
    monkeypatch.setattr(attachments, "REALIZED_WITHIN", 0.05)

    async def main() -> None:
        node = Node(tmp_path)
        node.known = False
        async with node.running() as group:
            group.start("remove what is left", node.attachments.finish())
            node.stick("device", NetworkError("not now"))
            with pytest.raises(Unreachable, match="waiting-for-identity"):
                await node.attachments.attach(node.request("a"))
            assert list(node.plumbing.devices) == ["lxc-c-a"]
            node.stick("device", None)
            await eventually(lambda: not node.plumbing.devices, timeout=10, what="the device to go")

    asyncio.run(main())


def test_an_address_in_use_is_not_given_back(tmp_path: Path) -> None:
    """Whoever gives back late what it was given, gives back nobody else's."""

    async def main() -> None:
        node = Node(tmp_path)
        given = node.pools.allocate("prod/a").ipv4
        async with node.running():
            await node.attachments.attach(msgspec.structs.replace(node.request("a"), ipv4=given))
            with pytest.raises(Conflict, match="prod/a"):
                await node.attachments.release(given)
            await node.attachments.detach("c-a")
            with pytest.raises(NotFound):
                await node.attachments.release(given)
            unused = node.pools.allocate("prod/b").ipv4
            await node.attachments.release(unused)
            assert not node.pools.allocations()

    asyncio.run(main())


def test_an_attach_of_an_address_of_the_node_itself_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        node.tables.local_addresses.put(LocalAddressRow("10.0.1.5/32", "local"))
        async with node.running():
            with pytest.raises(Conflict, match="of this node itself"):
                await node.attachments.attach(node.request("a"))
            assert not node.plumbing.devices

    asyncio.run(main())


def test_the_next_agent_takes_up_what_has_a_device_and_removes_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path)
        given = node.pools.allocate("prod/a").ipv4
        async with node.running() as group:
            group.start("remember", node.attachments.remember())
            row = await node.attachments.attach(msgspec.structs.replace(node.request("a"), ipv4=given))
            await eventually(lambda: node.remembered(row.id) == "ready", timeout=10, what="its file")
        node.registry.save(msgspec.structs.replace(row, id=row.id + 1, interface="lxc-gone"))
        after = Node(tmp_path)
        after.plumbing.devices = {**node.plumbing.devices, "lxc-orphan": ()}
        assert after.attachments.restore() == 1
        assert [one.id for one in after.tables.endpoints] == [row.id]
        assert after.tables.endpoints.ready
        assert list(after.plumbing.devices) == [row.interface]
        assert after.pools.allocations() == {given: "prod/a"}
        assert [path.name for path in after.registry.directory.iterdir()] == [f"{row.id}.json"]

    asyncio.run(main())


def test_a_full_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "SAVE_AGAIN", 0.01)

    async def main() -> None:
        node = Node(tmp_path)
        full = True
        save = node.registry.save

        def saved(row: EndpointRow) -> None:
            if full and row.state == "ready":
                raise StorageError("no space")
            save(row)

        monkeypatch.setattr(node.registry, "save", saved)
        async with node.running() as group:
            group.start("remember", node.attachments.remember())
            row = await node.attachments.attach(node.request("a"))
            assert node.remembered(row.id) != "ready"
            full = False
            await eventually(lambda: node.remembered(row.id) == "ready", timeout=10, what="its file")
            await node.attachments.detach("c-a")
            await eventually(lambda: not node.remembered(row.id), timeout=10, what="its file to go")

    asyncio.run(main())


def test_an_endpoint_that_changes_is_ready_again_when_the_kernel_has_it(tmp_path: Path) -> None:
    """A row that says it is not, as an attach that was killed leaves it, and one kept on another policy."""

    async def main() -> None:
        node = Node(tmp_path)
        async with node.running() as group:
            group.start("settle", node.attachments.settle())
            row = await node.attachments.attach(node.request("a"))
            node.kernel.maps[switching.BY_DEVICE].refuse = refused("put", 2)
            node.tables.endpoint_policies.put(EndpointPolicyRow(row.id, 0, True, False, 2))
            node.tables.endpoints.put(msgspec.structs.replace(row, state="waiting-for-identity"))
            await eventually(
                lambda: node.tables.endpoints.get(row.id) == row, timeout=10, what="it to be ready"
            )
            assert node.writer.realized(row.id) == node.tables.endpoint_policies.get(row.id)

    asyncio.run(main())
