"""A stream of events that is never wrong: pages, expiry, absence, selections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.loopback.kube.api import MAPS, Object, answering, config_map, responding, serving, with_client

from podwire.apiserver import ApiServer, ServerConfig
from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import ApiError
from podwire.kube import Client, Event
from podwire.kube import resources as known
from podwire.kube import watch as watching
from podwire.kube.credentials import Access
from podwire.kube.resources import Resource


@asynccontextmanager
async def scripted(*answers: tuple[str, int, Object]) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers request after request: what its query must have, code and body. What was asked,
    too; after the last answer it says nothing."""
    left, asked = list(answers), []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query_string)
        if not left:
            await asyncio.Event().wait()
        wanted, code, body = left.pop(0)
        assert wanted in request.query_string, (wanted, request.query_string)
        return web.json_response(body, status=code)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def page(revision: int, names: dict[str, str], token: str = "") -> Object:
    """A part of a list; `names` are of objects, with uid and version as one text each."""
    items = [
        {"metadata": {"name": name, "namespace": "default", "uid": of[0], "resourceVersion": of[1:]}}
        for name, of in names.items()
    ]
    more = {"continue": token} if token else {}
    return {"metadata": {"resourceVersion": str(revision), **more}, "items": items}


EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}


class Follower:
    """Holds what the events say there is."""

    def __init__(self, stream: AsyncIterator[Event]) -> None:
        self.stream = stream
        self.state: dict[str, Object] = {}
        self.kinds: list[str] = []

    async def until(self, kind: str, name: str = "") -> Event:
        """Go on to an event of this kind (and name)."""
        while True:
            event = await asyncio.wait_for(anext(self.stream), 20)
            self.kinds.append(event.kind)
            if event.kind in ("ADDED", "MODIFIED", "DELETED"):
                self._take(event)
            if event.kind == kind and (not name or event.name == name):
                return event

    def _take(self, event: Event) -> None:
        name = event.name
        assert (name in self.state) == (event.kind != "ADDED"), (event.kind, name)
        if event.kind == "DELETED":
            del self.state[name]
        else:
            self.state[name] = event.object

    @property
    def data(self) -> dict[str, Object]:
        return {name: body.get("data", {}) for name, body in self.state.items()}


def test_a_stream_goes_on_after_what_is_no_event() -> None:
    whole = '{"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "a"}}]}'

    async def main() -> None:
        texts = ('{"items": ["x"]}', whole, '{"type": "ADDED"}\n', whole)
        async with answering(*texts) as server, Client(Access(server=server)) as client:
            stream = client.watch(MAPS)
            kinds = [(await asyncio.wait_for(anext(stream), 20)).kind for _ in range(4)]
            assert kinds == ["ADDED", "SYNCED", "RESTARTED", "SYNCED"]

    asyncio.run(main())


def test_a_list_that_expires_between_two_pages_is_listed_again() -> None:
    """What was told of the first pages stays told; nothing is taken for gone before a list is whole."""

    async def main() -> None:
        answers = (
            ("limit=", 200, page(5, {"a": "u1", "b": "u1"}, token="x")),
            ("continue=x", 410, EXPIRED),
            ("limit=", 200, page(7, {"a": "u1"}, token="y")),
            ("continue=y", 200, page(7, {"c": "u1"})),
            ("resourceVersion=7", 410, EXPIRED),
            ("limit=", 200, page(9, {"a": "v8"}, token="z")),  # another object of that name
            ("continue=z", 410, EXPIRED),
            ("limit=", 200, page(11, {"a": "v9", "d": "u1"})),
        )
        async with scripted(*answers) as (server, asked), Client(Access(server=server)) as client:
            stream = client.watch(MAPS)
            told = [await asyncio.wait_for(anext(stream), 20) for _ in range(12)]
            assert [f"{one.kind} {one.name}".strip() for one in told] == [
                *("ADDED a", "ADDED b", "ADDED c", "DELETED b", "SYNCED"),
                *("RESTARTED", "DELETED a", "ADDED a", "MODIFIED a", "ADDED d", "DELETED c", "SYNCED"),
            ]
            await stream.aclose()  # type: ignore[attr-defined]
        assert "continue" not in asked[2] and "continue" not in asked[5]

    asyncio.run(main())


NAMELESS = ({"metadata": {"uid": "u"}}, {"metadata": {"name": 7}}, {"metadata": {"name": ""}}, {"spec": {}})


def test_objects_without_a_name_are_left_out_and_the_others_told() -> None:
    """One object that is none must not have all others listed again for ever."""
    whole = page(5, {"a": "u1"})
    lines = [{"type": "ADDED", "object": one} for one in NAMELESS]
    lines.append({"type": "ADDED", "object": {"metadata": {"name": "b", "resourceVersion": "8"}}})
    listed = json.dumps({**whole, "items": [*NAMELESS, *whole["items"]]})
    answers = (listed, "".join(f"{json.dumps(line)}\n" for line in lines))

    async def main() -> None:
        async with answering(*answers) as server, Client(Access(server=server)) as client:
            stream = client.watch(MAPS)
            told = [await asyncio.wait_for(anext(stream), 20) for _ in range(3)]
            assert [(one.kind, one.name) for one in told] == [("ADDED", "a"), ("SYNCED", ""), ("ADDED", "b")]
            await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


@pytest.mark.parametrize("answer", ['{"type": "ADDED"}\n', ""], ids=["no event", "nothing"])
def test_who_answers_no_events_is_asked_more_and_more_seldom(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """A list that is one says nothing of the watch that follows it."""
    whole, waits = page(5, {}), []

    class Noted(Backoff):
        def after(self, failures: int) -> float:
            waits.append(failures)
            return 0.001

    async def respond(request: web.Request) -> web.Response:
        return web.Response(text=answer) if "watch" in request.query else web.json_response(whole)

    async def follow(stream: AsyncIterator[Event]) -> None:
        async for _ in stream:
            pass

    async def main() -> None:
        monkeypatch.setattr(watching, "_BACKOFF", Noted(0.1, 1.0))
        async with responding(respond) as server, Client(Access(server=server)) as client:
            stream = client.watch(MAPS)
            async with cancelling("follow", follow(stream)):
                await eventually(lambda: len(waits) >= 3, timeout=20, what="waits")
            await stream.aclose()  # type: ignore[attr-defined]
        assert waits[:3] == [1, 2, 3]

    asyncio.run(main())


def test_a_watch_goes_on_from_where_the_first_page_was() -> None:
    """Pages are of one moment; a server that says another for a later one must not cost what came between."""

    async def main() -> None:
        answers = (
            ("limit=", 200, page(5, {"a": "u1"}, token="x")),
            ("continue=x", 200, page(8, {"b": "u1"})),
        )
        async with scripted(*answers) as (server, asked), Client(Access(server=server)) as client:
            stream = client.watch(MAPS)
            for _ in range(3):
                await asyncio.wait_for(anext(stream), 20)

            async def follow() -> None:
                await anext(stream)

            async with cancelling("follow", follow()):
                await eventually(lambda: len(asked) == 3, timeout=20, what="the watch")
            assert "resourceVersion=5" in asked[2]

    asyncio.run(main())


def test_of_a_long_list_one_page_is_there_and_others_have_their_turn(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        many = 1200
        kind = server.objects.kind("configmaps")
        for number in range(many):
            server.objects.create(kind, "default", config_map(f"c{number}"))
        sizes = [len(one.items or ()) async for one in client.pages(MAPS, "default")]
        assert sum(sizes) >= many and max(sizes) < many / 2
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        stream = client.watch(MAPS, "default")
        async with cancelling("others", others()):
            between = []
            async for event in stream:
                if event.kind == "SYNCED":
                    break
                between.append(turns)
        longest = max(between.count(turn) for turn in set(between))
        assert longest <= 64, "so many objects were told without a turn for anybody else"
        await stream.aclose()  # type: ignore[attr-defined]

    with_client(tmp_path, work)


def test_pods_come_into_a_nodes_watch_and_leave_it(tmp_path: Path) -> None:
    """A watch of one node's pods begins with those bound to it, and tells of who comes later as new."""

    def pod(name: str, node: str) -> Object:
        bound = {"nodeName": node} if node else {}
        return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "web"}], **bound}}

    async def work(client: Client, server: ApiServer) -> None:
        kind = server.objects.kind("pods")
        for name, node in (("here", "n1"), ("there", "n2"), ("nowhere", "")):
            server.objects.create(kind, "default", pod(name, node))
        follower = Follower(
            client.watch(known.PODS, field_selector="spec.nodeName=n1,status.phase!=Succeeded")
        )
        await follower.until("SYNCED")
        assert set(follower.state) == {"here"}
        server.objects.create(kind, "default", pod("other", "n2"))
        binding = {"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n1"}}
        await client.request("POST", known.PODS.path("default", "nowhere", "binding"), body=binding)
        added = await follower.until("ADDED", "nowhere")
        assert added.object["spec"]["nodeName"] == "n1"
        await client.patch(known.PODS, "there", {"metadata": {"labels": {"a": "b"}}}, "default")
        await client.delete(known.PODS, "here", "default", grace=0)
        await follower.until("DELETED", "here")
        assert set(follower.state) == {"nowhere"}
        ended = {"status": {"phase": "Succeeded"}}
        await client.patch(known.PODS, "nowhere", ended, "default", subresource="status")
        await follower.until("DELETED", "nowhere")
        await follower.stream.aclose()  # type: ignore[attr-defined]

    with_client(tmp_path, work)


def test_a_stream_begins_with_what_there_is(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        await client.create(MAPS, config_map("a"))
        follower = Follower(client.watch(MAPS, "default"))
        await follower.until("SYNCED")
        assert follower.kinds == ["ADDED", "SYNCED"]
        await client.create(MAPS, config_map("b"))
        await client.patch(MAPS, "b", {"data": {"x": "1"}}, "default")
        await client.delete(MAPS, "a", "default")
        await follower.until("DELETED", "a")
        assert follower.kinds[2:] == ["ADDED", "MODIFIED", "DELETED"]
        assert follower.data == {"b": {"x": "1"}}
        await follower.stream.aclose()  # type: ignore[attr-defined]

    with_client(tmp_path, work)


def test_selectors(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        follower = Follower(client.watch(MAPS, label_selector="on=yes"))
        await follower.until("SYNCED")
        body = config_map("a")
        body["metadata"]["labels"] = {"on": "yes"}
        await client.create(MAPS, config_map("b"))
        await client.create(MAPS, body)
        await follower.until("ADDED", "a")
        await client.patch(MAPS, "a", {"metadata": {"labels": None}}, "default")
        await follower.until("DELETED", "a")
        assert follower.state == {}
        found = await client.list(MAPS, field_selector="metadata.name=b")
        assert [one["metadata"]["name"] for one in found] == ["b"]
        await follower.stream.aclose()  # type: ignore[attr-defined]

    with_client(tmp_path, work)


def test_after_being_away_the_difference_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as server:
            port = int(server.url.rsplit(":", 1)[1])
            client = Client.from_kubeconfig(tmp_path / "admin.kubeconfig")
            for name in ("gone", "same", "changed", "again"):
                await client.create(MAPS, config_map(name))
            follower = Follower(client.watch(MAPS, "default"))
            await follower.until("SYNCED")
        # Meanwhile, by somebody else, and so much of it that the history does not reach back.
        server = ApiServer(ServerConfig(directory=tmp_path))
        server.store._kept = 1
        kind = server.objects.kind("configmaps")
        for name in ("gone", "again"):
            server.objects.delete(kind, "default", name)
        for body in (config_map("again"), config_map("new")):
            server.objects.create(kind, "default", body)
        for number in range(600):
            server.objects.update(kind, "default", "changed", config_map("changed", n=str(number)))
        server.store.close()
        async with serving(tmp_path, port):
            told = len(follower.kinds)
            await follower.until("SYNCED")
            assert follower.kinds[told] == "RESTARTED"
            assert follower.kinds.count("MODIFIED") == 1
            assert follower.data == {"same": {}, "changed": {"n": "599"}, "again": {}, "new": {}}
            listed = {one["metadata"]["name"]: one for one in await client.list(MAPS, "default")}
            assert follower.state == listed
            await client.create(MAPS, config_map("last"))
            await follower.until("ADDED", "last")
            await follower.stream.aclose()  # type: ignore[attr-defined]
            await client.close()

    asyncio.run(main())


def test_a_short_absence_is_not_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as server:
            port = int(server.url.rsplit(":", 1)[1])
            client = Client.from_kubeconfig(tmp_path / "admin.kubeconfig")
            follower = Follower(client.watch(MAPS, "default"))
            await follower.until("SYNCED")
        async with serving(tmp_path, port):
            await client.create(MAPS, config_map("a"))
            await follower.until("ADDED", "a")
            assert follower.kinds == ["SYNCED", "ADDED"]
            await follower.stream.aclose()  # type: ignore[attr-defined]
            await client.close()

    asyncio.run(main())


def test_a_kind_that_is_not_served_ends_the_stream(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        stream = client.watch(Resource("nobody.example.com", "v1", "things", "Thing"))
        with pytest.raises(ApiError) as caught:
            await anext(stream)
        assert caught.value.code == 404

    with_client(tmp_path, work)
