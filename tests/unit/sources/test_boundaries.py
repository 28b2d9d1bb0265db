"""A fault over one object ends nothing: the others are read, numbered and told all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.unit.sources.told import told

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import ApiError, Unreachable
from podwire.identity.allocate import Allocator
from podwire.identity.prefixes import Prefixes
from podwire.kube import Event
from podwire.policy.parse import parse
from podwire.sources.report import Reporter
from podwire.sources.watch import Sources
from podwire.state.tables import EndpointRow, NodeRow, Tables
from podwire.stores import identities
from podwire.stores.identities import CREATE_TRIES, Known, KubeIdentities, MemoryIdentities, Synced

QUICK = Backoff(0.001, 0.002)


def named(name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "prod", "name": name, "labels": {}}}


class Stream:
    """An API that tells these events, and fails between them where one is an error."""

    def __init__(self, *events: Event | Exception) -> None:
        self.events = list(events)

    async def watch(self, resource: Any, **_: Any) -> AsyncIterator[Event]:
        while self.events:
            event = self.events.pop(0)
            if isinstance(event, Exception):
                raise event
            yield event
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    "error",
    [ApiError(500, "InternalError", "no"), Unreachable("gone"), None],
    ids=["API error", "unreachable", "none"],
)
def test_a_row_maker_that_raises_ends_no_watch(error: Exception | None) -> None:
    async def main() -> None:
        tables = Tables()
        sources = Sources(tables, node_name="n1", parse=parse, backoff=QUICK)
        family = next(one for one in sources.families if one.table is tables.namespaces)
        made = family.row_of

        def row_of(item: Any) -> Any:
            if item.metadata.name == "bad":
                raise RecursionError("a fault of ours")
            return made(item)

        family.row_of = row_of
        events: list[Event | Exception] = [
            told("ADDED", named("bad")),
            Event("ADDED", "", "worse", b'{"metadata": "no mapping"}'),
            Event("ADDED", "", "worst", b"no JSON"),
            Event("DELETED", "", "worse"),
            *([error] if error else []),
            told("ADDED", named("good")),
            Event("SYNCED"),
        ]
        async with cancelling("watch", sources.follow(Stream(*events), family)):
            await eventually(lambda: "good" in tables.namespaces, timeout=10, what="the other object")
            await eventually(lambda: tables.namespaces.ready, timeout=10, what="the end of the list")
        assert any("RecursionError" in text for text in sources.malformed().values()) or error is not None

    asyncio.run(main())


def test_an_identity_that_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    read = identities.read

    def faulty(name: str, raw: bytes, numbers: range) -> Known | None:
        if name == "300":
            raise ZeroDivisionError
        return read(name, raw, numbers)

    async def main() -> None:
        monkeypatch.setattr(identities, "read", faulty)
        objects = [identities.document(number, ("k8s:app=web",)) for number in (300, 301)]
        stream: Any = Stream(*(told("ADDED", one) for one in objects), Event("SYNCED"))
        events = KubeIdentities(stream).watch()
        assert [await anext(events), await anext(events)] == [Known(301, ("k8s:app=web",)), Synced()]
        await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_an_identity_that_is_there_and_is_not_is_given_up() -> None:
    class Flickering:
        asked = 0

        async def create(self, *_: Any) -> Any:
            self.asked += 1
            raise ApiError(409, "AlreadyExists", "it exists")

        async def get(self, *_: Any) -> Any:
            raise ApiError(404, "NotFound", "it does not")

    api: Any = Flickering()
    with pytest.raises(Unreachable):
        asyncio.run(KubeIdentities(api).create(300, ("k8s:app=web",)))
    assert api.asked == CREATE_TRIES


def endpoint(number: int, app: str) -> EndpointRow:
    return EndpointRow(
        number, "prod", app, f"u{number}", f"c{number}", "/n", f"lxc{number}", number, "", "",
        f"10.0.1.{number}", "", (f"k8s:app={app}",), 0, (), "waiting-for-identity",
    )  # fmt: skip


def test_a_set_of_labels_that_gets_no_identity_holds_up_no_other() -> None:
    class Faulty(MemoryIdentities):
        async def create(self, number: int, labels: Any) -> Any:
            if labels == ("k8s:app=bad",):
                raise KeyError("an answer without a name")
            return await super().create(number, labels)

    async def main() -> None:
        tables = Tables()
        tables.endpoints.put(endpoint(1, "bad"))
        tables.endpoints.put(endpoint(2, "good"))
        allocator = Allocator(tables, Prefixes(tables, ipv4=True, ipv6=False))
        async with cancelling("allocate", allocator.run(Faulty())):

            def numbered() -> bool:
                row = tables.endpoints.get(2)
                return row is not None and row.identity > 0

            await eventually(numbered, timeout=10, what="the other's identity")
            assert list(allocator.errors) == [("k8s:app=bad",)]

    asyncio.run(main())


def test_an_object_that_cannot_be_told_holds_up_no_other() -> None:
    class Api:
        away = ""

        def __init__(self) -> None:
            self.told: list[str] = []

        async def create(self, resource: Any, body: Any, namespace: str | None = None) -> Any:
            if body["metadata"]["name"] == "bad":
                raise TypeError("an answer that is no mapping")
            self.told.append(body["metadata"]["name"])
            return body

        async def patch(self, *_: Any, **__: Any) -> Any:
            return {}

        async def get(self, *_: Any, **__: Any) -> Any:
            return {"metadata": {}, "status": {"conditions": "no list"}}

        async def delete(self, *_: Any, **__: Any) -> None:
            return None

    async def main() -> None:
        tables, api = Tables(), Api()
        tables.endpoints.put(msgspec.structs.replace(endpoint(1, "bad"), state="ready"))
        tables.endpoints.put(msgspec.structs.replace(endpoint(2, "good"), state="ready"))
        tables.nodes.put(NodeRow("n1", ("172.18.0.1",), ("10.0.1.0/24",), {}, local=True))
        for table in tables:
            table.mark_all_ready()
        typed: Any = api
        reporter = Reporter(typed, tables, node_name="n1", backoff=QUICK)
        async with cancelling("tell", reporter.run()):
            await eventually(lambda: "good" in api.told and "n1" in api.told, timeout=10, what="the others")
            await eventually(lambda: len(reporter.due) == 2, timeout=10, what="what is left to do")
            assert set(reporter.due) == {("endpoint", "prod", "bad"), "enforced"} and reporter.error

    asyncio.run(main())
