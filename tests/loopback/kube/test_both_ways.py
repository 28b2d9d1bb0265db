"""`kube.Api` in process and over HTTPS: one behaviour, whichever it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.loopback.kube.api import MAPS, config_map
from tests.loopback.kube.apis import asking, both_ways

from podwire.apiserver import watch as watches
from podwire.base.errors import ApiError
from podwire.kube import STRATEGIC, Api, Event, resources
from podwire.kube.resources import Resource

Object = dict[str, Any]


async def refused(code: int, work: Any) -> None:
    with pytest.raises(ApiError) as caught:
        await work
    assert caught.value.code == code


@both_ways
def test_verbs(way: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(way, tmp_path) as (api, _):
            made = await api.create(MAPS, config_map("a", x="1"))
            assert await api.get(MAPS, "a", "default") == made
            await refused(409, api.create(MAPS, config_map("a"), "default"))
            await refused(404, api.get(MAPS, "b", "default"))
            await refused(404, api.get(Resource("none.example", "v1", "things", "Thing"), "a", "default"))
            old = made["metadata"]["resourceVersion"]
            patched = await api.patch(MAPS, "a", {"data": {"y": "2"}}, "default")
            assert patched["data"] == {"x": "1", "y": "2"}
            stale = {"metadata": {"resourceVersion": old}, "data": {"y": "3"}}
            await refused(409, api.patch(MAPS, "a", stale, "default"))
            await refused(409, api.update(MAPS, made))
            patched["data"] = {"z": "4"}
            updated = await api.update(MAPS, patched)
            assert updated["data"] == {"z": "4"}
            listed = await api.list(MAPS, "default")
            assert listed == [updated]
            assert await api.list(MAPS, field_selector="metadata.name=b") == []
            await refused(409, api.delete(MAPS, "a", "default", only={"uid": "another"}))
            await refused(409, api.delete(MAPS, "a", "default", only={"resourceVersion": old}))
            await api.delete(MAPS, "a", "default", only={"uid": made["metadata"]["uid"]})
            await api.delete(MAPS, "a", "default")
            assert await api.list(MAPS, "default") == []

    asyncio.run(main())


@both_ways
def test_what_is_given_out_belongs_to_who_asked(way: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(way, tmp_path) as (api, _):
            sent = config_map("a", x="1")
            made = await api.create(MAPS, sent)
            assert "uid" not in sent["metadata"]
            made["data"]["x"] = "changed"
            (await api.list(MAPS, "default"))[0]["data"]["x"] = "changed"
            assert (await api.get(MAPS, "a", "default"))["data"] == {"x": "1"}

    asyncio.run(main())


@both_ways
def test_status_and_lists_of_conditions(way: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(way, tmp_path) as (api, _):
            await api.create(resources.NODES, {"metadata": {"name": "n1"}})
            for kind in ("Ready", "Tested"):
                status = {"conditions": [{"type": kind, "status": "True"}]}
                patch = {"status": status, "spec": {"unschedulable": True}}
                node = await api.patch(
                    resources.NODES, "n1", patch, subresource="status", content_type=STRATEGIC
                )
            assert [one["type"] for one in node["status"]["conditions"]] == ["Ready", "Tested"]
            assert "unschedulable" not in node.get("spec", {})
            await refused(404, api.patch(MAPS, "a", {}, "default", subresource="status"))
            await refused(404, api.patch(resources.CILIUM_IDENTITIES, "300", {}, subresource="status"))

    asyncio.run(main())


class Follower:
    """Holds what the events say there is."""

    def __init__(self, api: Api, **chosen: str) -> None:
        self.stream = api.watch(MAPS, "default", **chosen)
        self.there: dict[str, Object] = {}
        self.kinds: list[str] = []

    async def until(self, kind: str, name: str = "") -> Event:
        while True:
            event = await asyncio.wait_for(anext(self.stream), 20)
            self.kinds.append(event.kind)
            if event.kind in ("ADDED", "MODIFIED"):
                self.there[event.name] = event.object["data"]
            elif event.kind == "DELETED":
                del self.there[event.name]
            if event.kind == kind and name in ("", event.name):
                return event

    async def close(self) -> None:
        await self.stream.aclose()  # type: ignore[attr-defined]


@both_ways
def test_a_stream_tells_what_there_is_and_what_becomes_of_it(way: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(way, tmp_path) as (api, _):
            await api.create(MAPS, config_map("a", x="1"))
            follower = Follower(api)
            await follower.until("SYNCED")
            assert follower.there == {"a": {"x": "1"}}
            await api.create(MAPS, config_map("b", x="2"))
            await api.patch(MAPS, "a", {"data": {"x": "3"}}, "default")
            await api.delete(MAPS, "b", "default")
            deleted = await follower.until("DELETED", "b")
            assert deleted.object["data"] == {"x": "2"}  # as it was
            assert follower.kinds == ["ADDED", "SYNCED", "ADDED", "MODIFIED", "DELETED"]
            await follower.close()
            chosen = Follower(api, field_selector="metadata.name=c")
            await chosen.until("SYNCED")
            await api.create(MAPS, config_map("c", x="4"))
            await chosen.until("ADDED", "c")
            assert chosen.there == {"c": {"x": "4"}}
            await chosen.close()

    asyncio.run(main())


@both_ways
def test_who_falls_behind_what_is_remembered_is_told_the_difference(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch ends, 410 is the answer to the next, and all is listed again."""

    async def main() -> None:
        monkeypatch.setattr(watches, "PENDING", 4)
        async with asking(way, tmp_path) as (api, server):
            server.store._kept = 1
            for name in ("gone", "same", "again"):
                await api.create(MAPS, config_map(name, x="1"))
            follower = Follower(api)
            await follower.until("SYNCED")
            # The watch is under way: what is told comes through it.
            await api.create(MAPS, config_map("last", x="1"))
            await follower.until("ADDED", "last")
            objects, kind = server.objects, server.objects.kind("configmaps")
            for _ in range(600):  # more than is remembered, without a turn for who follows
                objects.delete(kind, "default", "again")
                objects.create(kind, "default", config_map("again", x="2"))
            objects.delete(kind, "default", "gone")
            await follower.until("RESTARTED")
            await follower.until("SYNCED")
            assert follower.there == {"same": {"x": "1"}, "again": {"x": "2"}, "last": {"x": "1"}}
            await follower.close()

    asyncio.run(main())
