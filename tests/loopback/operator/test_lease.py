"""One of several candidates leads; who is late, silent or asleep does not, and writes nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.loopback.kube.api import MAPS, config_map
from tests.loopback.kube.apis import asking, both_ways

from podwire.apiserver import ApiServer
from podwire.base.aio import cancelling, eventually
from podwire.base.errors import Unreachable
from podwire.kube import Api, lease
from podwire.kube.lease import Election, LeadershipLost

Object = dict[str, Any]


def run(way: str, directory: Path, test: Callable[[Api, ApiServer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asking(way, directory) as (api, server):
            await test(api, server)

    asyncio.run(main())


def spec(server: ApiServer) -> Object:
    found = server.objects.find("leases.coordination.k8s.io", "kube-system", "work")
    return found["spec"] if found is not None else {}


async def work_for_ever(_: Api) -> None:
    await asyncio.Event().wait()


class Away:
    """An API of which the way can be cut; what was asked then waits until somebody gives up."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)

        async def ask(*arguments: Any, **named: Any) -> Any:
            if self.cut:
                await asyncio.Event().wait()
            return await method(*arguments, **named)

        return ask


@both_ways
def test_one_leads_and_gives_the_lease_back(way: str, tmp_path: Path) -> None:
    async def test(api: Api, server: ApiServer) -> None:
        anna, ben = (Election(api, "work", name, retry=0.01, lasts=60) for name in ("anna", "ben"))
        async with cancelling("anna", anna.lead(work_for_ever)):
            await eventually(lambda: anna.leads, timeout=20, what="a leader")
            async with cancelling("ben", ben.lead(work_for_ever)):
                renewed = spec(server)["renewTime"]
                await eventually(lambda: spec(server)["renewTime"] != renewed, timeout=20, what="a renewal")
                await eventually(lambda: ben._seen[0], timeout=20, what="the other's look")
                assert (anna.leads, ben.leads, spec(server)["holderIdentity"]) == (True, False, "anna")
        assert spec(server)["holderIdentity"] == ""
        async with cancelling("ben", ben.lead(work_for_ever)):
            await eventually(lambda: ben.leads, timeout=20, what="the next leader")
            assert (spec(server)["holderIdentity"], spec(server)["leaseTransitions"]) == ("ben", 1)

    run(way, tmp_path, test)


@both_ways
def test_a_silent_leader_ends_before_another_begins(way: str, tmp_path: Path) -> None:
    async def test(api: Api, server: ApiServer) -> None:
        story: list[str] = []

        def working(name: str) -> Callable[[Api], Any]:
            async def work(_: Api) -> None:
                story.append(f"{name} begins")
                try:
                    await asyncio.Event().wait()
                finally:
                    story.append(f"{name} ends")

            return work

        cut: Any = Away(api)
        anna = Election(cut, "work", "anna", retry=0.05, lasts=1)
        ben = Election(api, "work", "ben", retry=0.05, lasts=1)
        lost: list[Exception] = []

        async def lead() -> None:
            try:
                await anna.lead(working("anna"))
            except LeadershipLost as error:
                lost.append(error)

        async with cancelling("anna", lead()):
            await eventually(lambda: anna.leads, timeout=20, what="a leader")
            async with cancelling("ben", ben.lead(working("ben"))):
                cut.cut = True
                await eventually(lambda: len(story) == 3, timeout=20, what="the next leader")
                assert story == ["anna begins", "anna ends", "ben begins"]
                assert lost and not anna.leads

    run(way, tmp_path, test)


@both_ways
def test_who_slept_writes_nothing(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slept, or the process was stopped: before it has found out, the clock says so."""

    async def test(api: Api, server: ApiServer) -> None:
        slept, wrote = 0.0, asyncio.Event()
        clock = lease.clock
        monkeypatch.setattr(lease, "clock", lambda: clock() + slept)
        anna = Election(api, "work", "anna", retry=60, lasts=60)
        refused: list[Exception] = []

        async def work(led: Api) -> None:
            nonlocal slept
            await led.create(MAPS, config_map("before"))
            slept = 45.0
            for write in (
                lambda: led.create(MAPS, config_map("after")),
                lambda: led.patch(MAPS, "before", {"data": {"x": "1"}}, "default"),
                lambda: led.delete(MAPS, "before", "default"),
            ):
                try:
                    await write()
                except LeadershipLost as error:
                    refused.append(error)
            assert (await led.get(MAPS, "before", "default"))["metadata"]["name"] == "before"
            wrote.set()
            await asyncio.Event().wait()

        async with cancelling("anna", anna.lead(work)):
            await asyncio.wait_for(wrote.wait(), 20)
        assert len(refused) == 3
        assert [one["metadata"]["name"] for one in await api.list(MAPS, "default")] == ["before"]
        assert not (await api.get(MAPS, "before", "default"))["data"]

    run(way, tmp_path, test)


@both_ways
def test_a_write_ends_before_the_lease_does(way: str, tmp_path: Path) -> None:
    async def test(api: Api, server: ApiServer) -> None:
        cut: Any = Away(api)
        anna = Election(cut, "work", "anna", retry=0.2, lasts=1)
        ended: list[Exception] = []

        async def work(led: Api) -> None:
            cut.cut = True
            try:
                await led.create(MAPS, config_map("late"))
            except Unreachable as error:
                ended.append(error)
            assert anna.left <= 0
            await asyncio.Event().wait()

        with pytest.raises(LeadershipLost):
            await asyncio.wait_for(anna.lead(work), 20)
        assert len(ended) <= 1

    run(way, tmp_path, test)
