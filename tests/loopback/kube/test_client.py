"""The client against the embedded API: verbs, errors, and a stream of events that is never wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from podwire.apiserver import ApiServer, ServerConfig
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.kube import Client, Event
from podwire.kube import resources as known
from podwire.kube.credentials import Access
from podwire.kube.manifests import apply_manifests, delete_manifests, parse
from podwire.kube.resources import Resource

Object = dict[str, Any]
MAPS = known.CONFIG_MAPS


def config_map(name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


@asynccontextmanager
async def serving(directory: Path, port: int = 0) -> AsyncIterator[ApiServer]:
    server = ApiServer(ServerConfig(directory=directory, port=port))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def with_client(directory: Path, work: Callable[[Client, ApiServer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with (
            serving(directory) as server,
            Client.from_kubeconfig(directory / "admin.kubeconfig") as client,
        ):
            await work(client, server)

    asyncio.run(main())


def test_verbs(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        made = await client.create(MAPS, config_map("a", x="1"))
        assert await client.get(MAPS, "a", "default") == made
        made["data"] = {"x": "2"}
        updated = await client.update(MAPS, made)
        with pytest.raises(ApiError) as caught:
            await client.update(MAPS, made)
        assert (caught.value.code, caught.value.reason) == (409, "Conflict")
        patched = await client.patch(MAPS, "a", {"data": {"y": "3"}}, "default")
        assert patched["data"] == {"x": "2", "y": "3"} and patched != updated
        applied = await client.apply(MAPS, config_map("a", z="4"), manager="test")
        assert applied["data"] == {"x": "2", "y": "3", "z": "4"}
        names = [one["metadata"]["name"] for one in await client.list(MAPS, "default")]
        assert names == ["a"]
        await client.delete(MAPS, "a", "default")
        await client.delete(MAPS, "a", "default")
        with pytest.raises(ApiError) as caught:
            await client.get(MAPS, "a", "default")
        assert (caught.value.code, caught.value.reason) == (404, "NotFound")

    with_client(tmp_path, work)


def test_status_and_custom_kinds(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        body = {"metadata": {"name": "e", "namespace": "default"}}
        made = await client.create(known.CILIUM_ENDPOINTS, body)
        made["status"] = {"id": 7, "state": "ready"}
        await client.update_status(known.CILIUM_ENDPOINTS, made)
        assert (await client.get(known.CILIUM_ENDPOINTS, "e", "default"))["status"]["state"] == "ready"
        identity = {"metadata": {"name": "1234"}, "security-labels": {"k8s:app": "web"}}
        assert (await client.create(known.CILIUM_IDENTITIES, identity))["security-labels"] == {
            "k8s:app": "web"
        }
        assert await client.resource_of("cilium.io/v2", "CiliumNode") == known.CILIUM_NODES
        binding = await client.resource_of("apps/v1", "ControllerRevision")
        assert binding == Resource("apps", "v1", "controllerrevisions", "ControllerRevision", True)
        with pytest.raises(ApiError, match="serves no Nothing"):
            await client.resource_of("v1", "Nothing")

    with_client(tmp_path, work)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path):
            pass
        async with Client.from_kubeconfig(tmp_path / "admin.kubeconfig") as client:
            with pytest.raises(Unreachable, match="does not answer"):
                await client.list(MAPS)

    asyncio.run(main())


@asynccontextmanager
async def answering(*texts: str) -> AsyncIterator[str]:
    """The address of a server that answers with each of `texts` in turn, the last one again and again."""
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text=texts[min(asked, len(texts)) - 1])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("text", ["<html>", "[]", '"text"', "[" * 100_000])
def test_an_answer_that_is_no_object(text: str) -> None:
    async def main() -> None:
        async with answering(text) as server, Client(Access(server=server)) as client:
            with pytest.raises(Unreachable, match="does not answer"):
                await client.get(MAPS, "a", "default")

    asyncio.run(main())


def test_a_token_that_cannot_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        access = Access(server="http://127.0.0.1:1", token_file=str(tmp_path / "none"))
        async with Client(access) as client:
            with pytest.raises(Unreachable, match="No such file"):
                await client.get(MAPS, "a", "default")

    asyncio.run(main())


def test_a_stream_goes_on_after_what_is_no_event() -> None:
    whole = '{"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "a"}}]}'

    async def main() -> None:
        texts = ('{"items": ["x"]}', whole, '{"type": "ADDED"}\n', whole)
        async with answering(*texts) as server, Client(Access(server=server)) as client:
            stream = client.watch(MAPS)
            kinds = [(await asyncio.wait_for(anext(stream), 20)).kind for _ in range(4)]
            assert kinds == ["ADDED", "SYNCED", "RESTARTED", "SYNCED"]

    asyncio.run(main())


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
            if event.kind == kind and (not name or event.object["metadata"]["name"] == name):
                return event

    def _take(self, event: Event) -> None:
        name = event.object["metadata"]["name"]
        assert (name in self.state) == (event.kind != "ADDED"), (event.kind, name)
        if event.kind == "DELETED":
            del self.state[name]
        else:
            self.state[name] = event.object

    @property
    def data(self) -> dict[str, Object]:
        return {name: body.get("data", {}) for name, body in self.state.items()}


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


MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: prod}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a, namespace: prod}
  data: {x: "1"}
- apiVersion: cilium.io/v2
  kind: CiliumNetworkPolicy
  metadata: {name: p, namespace: prod}
  spec: {endpointSelector: {}, ingress: [{}]}
"""


def test_manifests_are_applied_in_order_and_removed(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        manifests = parse(MANIFESTS, "all.yaml")
        for _ in range(2):
            applied = await apply_manifests(client, manifests)
            assert [one["kind"] for one in applied] == ["Namespace", "ConfigMap", "CiliumNetworkPolicy"]
        wrong = MANIFESTS.replace("endpointSelector: {}", "endpointSelector: 7")
        with pytest.raises(InvalidObject, match=r"^all.yaml:6: .*spec.endpointSelector"):
            await apply_manifests(client, parse(wrong, "all.yaml"))
        await delete_manifests(client, manifests[1:])
        assert await client.list(MAPS, "prod", field_selector="metadata.name=a") == []

    with_client(tmp_path, work)
