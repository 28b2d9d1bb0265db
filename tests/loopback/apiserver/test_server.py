"""The server over its sockets: who may ask, what is answered, watches, restarts."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from podwire.apiserver import ApiServer, ServerConfig
from podwire.apiserver.tls import Authority
from podwire.base.errors import ConfigError, PodwireError
from podwire.kube.credentials import Access

Object = dict[str, Any]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Api:
    """A client that sends anything and shows what came back."""

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, (bytes, type(None))) else msgspec.json.encode(body)
        given.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.server.url + path, data=data, headers=given) as response:
            raw = await response.read()
            return response.status, msgspec.json.decode(raw) if raw[:1] in b"{[" and raw else raw.decode()


def with_server(directory: Path, work: Callable[[Api], Awaitable[None]]) -> None:
    async def main() -> None:
        server = ApiServer(ServerConfig(directory=directory))
        await server.start()
        try:
            credentials = server.authority.client("anna", ("team",))
            access = Access(server.url, server.authority.pem, credentials.certificate, credentials.key)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=access.tls())) as session:
                await work(Api(server, session))
        finally:
            await server.stop()

    asyncio.run(main())


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


MAPS = "/api/v1/namespaces/default/configmaps"


def test_only_who_is_known_is_answered(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        none = Access(api.server.url, api.server.authority.pem)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=none.tls())) as session:
            other = Api(api.server, session)
            for path in ("/api/v1/secrets", "/apis", "/openapi/v3", "/api/v1/pods?watch=true", "/nothing"):
                code, body = await other("GET", path)
                assert (code, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")
            assert (await other("POST", MAPS, config_map("c")))[0] == 401
            assert (await other("GET", "/api/v1/pods", Authorization="Bearer a.b.c"))[0] == 401
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=none.tls())) as session:
            assert await Api(api.server, session)("GET", "/readyz") == (200, "ok")
        code, body = await api("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
        assert body["status"]["userInfo"] == {"username": "anna", "groups": ["team", "system:authenticated"]}

    with_server(tmp_path / "state", work)


def test_a_wrong_certificate_ends_the_handshake(tmp_path: Path) -> None:
    """One of another CA, one that is no client's: neither asks for anything, whatever token it has."""

    async def work(api: Api) -> None:
        home = tmp_path / "stranger"
        home.mkdir()
        stranger = Authority(home).client("anna", ("system:masters",))
        server = api.server.authority.server((), ())
        for one in (stranger, server):
            access = Access(api.server.url, api.server.authority.pem, one.certificate, one.key)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=access.tls())) as session:
                for path in ("/api/v1/secrets", "/readyz"):
                    with pytest.raises(aiohttp.ClientError):
                        await Api(api.server, session)("GET", path)
        assert (await api("GET", MAPS))[0] == 200  # and others are served

    with_server(tmp_path / "state", work)


def test_a_service_accounts_token(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        await api("POST", accounts, {"metadata": {"name": "robot"}})
        _, made = await api("POST", f"{accounts}/robot/token", {"spec": {"expirationSeconds": 600}})
        token = made["status"]["token"]
        anonymous = Access(api.server.url, api.server.authority.pem)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=anonymous.tls())) as session:
            other = Api(api.server, session)
            assert (await other("GET", "/api/v1/pods", Authorization=f"Bearer {token}"))[0] == 200
            head, body, signature = token.split(".")
            for forged in (
                f"{head}.{body}.{signature[:-2]}AA",
                f"{head}.{body[:-2]}AA.{signature}",
                f"{head}.{body}.",
            ):
                assert (await other("GET", "/api/v1/pods", Authorization=f"Bearer {forged}"))[0] == 401

    with_server(tmp_path, work)


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        for file in tmp_path.iterdir():
            if file.suffix in (".key", ".crt", ".kubeconfig"):
                assert file.stat().st_mode & 0o777 == 0o600, file
        assert tmp_path.stat().st_mode & 0o777 == 0o700

    with_server(tmp_path, work)


def test_state_survives_a_restart(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def first(api: Api) -> None:
        _, seen["made"] = await api("POST", MAPS, config_map("c", a="1"))

    async def second(api: Api) -> None:
        code, body = await api("GET", f"{MAPS}/c")
        assert (code, body) == (200, seen["made"])
        lines = await watched(
            api, f"{MAPS}?watch=1&resourceVersion={int(body['metadata']['resourceVersion']) - 1}", 1
        )
        assert lines[0]["type"] == "ADDED" and lines[0]["object"] == body

    with_server(tmp_path, first)
    with_server(tmp_path, second)


async def watched(api: Api, path: str, count: int, **headers: str) -> list[Object]:
    """The first events of a watch."""
    lines: list[Object] = []
    async with api.session.get(api.server.url + path, headers=headers) as response:
        assert response.status == 200
        while len(lines) < count:
            lines.append(msgspec.json.decode(await asyncio.wait_for(response.content.readline(), 5)))
    return lines


def test_watches(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        _, a = await api("POST", MAPS, {**config_map("a"), "metadata": {"name": "a", "labels": {"t": "x"}}})
        before = len(api.server.store.listeners)
        watching = asyncio.gather(
            watched(api, f"{MAPS}?watch=true&resourceVersion={a['metadata']['resourceVersion']}", 3),
            watched(api, f"{MAPS}?watch=true&labelSelector=t%3Dx", 2),
            watched(api, f"{MAPS}?watch=true&fieldSelector=metadata.name%3Db", 1),
            watched(api, f"{MAPS}?watch=true", 2, Accept=TABLE),
        )
        while len(api.server.store.listeners) < before + 4:
            await asyncio.sleep(0)
        await api("POST", MAPS, config_map("b"))
        await api(
            "PATCH",
            f"{MAPS}/a",
            {"metadata": {"labels": {"t": "y"}}},
            Content_Type="application/merge-patch+json",
        )
        await api("DELETE", f"{MAPS}/b")
        everything, labelled, named, tables = await watching
        kinds = [(one["type"], one["object"]["metadata"]["name"]) for one in everything]
        assert kinds == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
        assert [one["type"] for one in labelled] == ["ADDED", "DELETED"]  # the label no longer fits
        assert named[0]["object"]["metadata"]["name"] == "b"
        assert tables[1]["object"]["kind"] == "Table" and tables[1]["object"]["rows"][0]["cells"][0] == "b"

    with_server(tmp_path, work)


def test_initial_events_and_bookmarks(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        await api("POST", MAPS, config_map("a"))
        query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        added, bookmark = await watched(api, f"{MAPS}?{query}", 2)
        assert added["type"] == "ADDED"
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert bookmark["object"]["metadata"]["resourceVersion"] == str(api.server.store.revision)
        async with api.session.get(
            f"{api.server.url}{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=1"
        ) as response:
            body = await asyncio.wait_for(response.read(), 5)
        assert body.count(b"\n") == 1

    with_server(tmp_path, work)


def test_a_forgotten_revision_is_gone(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        api.server.store._kept = 10
        for number in range(700):
            await api(
                "POST" if number == 0 else "PUT",
                MAPS + ("" if number == 0 else "/c"),
                config_map("c", n=str(number)),
            )
        code, body = await api("GET", f"{MAPS}?watch=true&resourceVersion=2")
        assert (code, body["reason"]) == (410, "Expired")

    with_server(tmp_path, work)


def test_lists_in_pages(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        for number in range(7):
            await api("POST", MAPS, config_map(f"c{number}"))
        names, token, pages = [], "", 0
        while True:
            _, page = await api("GET", f"{MAPS}?limit=3" + (f"&continue={token}" if token else ""))
            names += [one["metadata"]["name"] for one in page["items"]]
            pages, token = pages + 1, page["metadata"].get("continue", "")
            if not token:
                break
        assert (pages, names) == (3, [f"c{number}" for number in range(7)])
        assert (await api("GET", f"{MAPS}?limit=3&continue=nonsense"))[0] == 400
        _, partial = await api(
            "GET", MAPS, Accept="application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        )
        assert partial["kind"] == "PartialObjectMetadataList" and "data" not in partial["items"][0]

    with_server(tmp_path, work)


def test_events_are_one_in_two_versions(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        regarding = {"kind": "Pod", "name": "p", "namespace": "default"}
        event = {
            "metadata": {"name": "e"},
            "regarding": regarding,
            "note": "hello",
            "reason": "R",
            "type": "Normal",
        }
        event |= {"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "action": "A"}
        new = "/apis/events.k8s.io/v1/namespaces/default/events"
        assert (await api("POST", new, event))[0] == 201
        _, old = await api("GET", "/api/v1/namespaces/default/events/e")
        assert (old["message"], old["involvedObject"]["name"], old["apiVersion"]) == ("hello", "p", "v1")
        _, listed = await api("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dp,type%3DNormal")
        assert len(listed["items"]) == 1
        _, again = await api("GET", f"{new}/e")
        assert (again["note"], again["apiVersion"]) == ("hello", "events.k8s.io/v1")
        change = {"note": "changed"}
        code, patched = await api("PATCH", f"{new}/e", change, Content_Type="application/merge-patch+json")
        assert (code, patched["note"]) == (200, "changed")

    with_server(tmp_path, work)


MISTAKES: list[tuple[str, str, Any, dict[str, str], int]] = [
    ("GET", "/api/v1/nothing", None, {}, 404),
    ("GET", "/api/v1/namespaces/default/pods/p/nothing", None, {}, 404),
    ("GET", "/api/v1/namespaces/default/configmaps/none", None, {}, 404),
    ("GET", "/nothing", None, {}, 404),
    ("POST", MAPS, b"{", {}, 400),
    ("POST", MAPS, b"\xff\xfe", {}, 400),
    ("POST", MAPS, b"[]", {}, 400),
    ("POST", MAPS, b"null", {}, 400),
    ("POST", MAPS, b"", {}, 400),
    ("POST", MAPS, b"[" * 100_000, {}, 400),
    ("POST", MAPS, {"kind": "Pod", "apiVersion": "v1"}, {}, 400),
    ("POST", MAPS, {"metadata": {"name": "d", "namespace": "other"}}, {}, 400),
    ("POST", MAPS, {"metadata": "c"}, {}, 422),
    ("POST", "/api/v1/configmaps", {"metadata": {"name": "c"}}, {}, 400),
    ("POST", MAPS, b"a: &x [1]\nb: *x\n", {"Content_Type": "application/yaml"}, 400),
    ("POST", MAPS, b"x", {"Content_Type": "text/plain"}, 415),
    ("POST", MAPS, b"k8s\x00\x0a\xff", {"Content_Type": "application/vnd.kubernetes.protobuf"}, 400),
    ("POST", MAPS, b" " * (3 * 1024 * 1024 + 1), {}, 413),
    ("PUT", MAPS, {}, {}, 405),
    ("PATCH", f"{MAPS}/c", {}, {"Content_Type": "application/x"}, 415),
    ("GET", f"{MAPS}?labelSelector=%25%25", None, {}, 400),
    ("GET", f"{MAPS}?fieldSelector=spec.x%3D1", None, {}, 400),
    ("GET", f"{MAPS}?limit=-1", None, {}, 400),
    ("GET", f"{MAPS}?watch=1&resourceVersion=x", None, {}, 400),
    ("GET", MAPS, None, {"Accept": "application/vnd.kubernetes.protobuf"}, 406),
    ("GET", MAPS, None, {"Accept": "application/vnd.kubernetes.protobuf, */*"}, 200),
    ("GET", "/api/v1/namespaces/default/pods/none/log", None, {}, 404),
    ("HEAD", MAPS, None, {}, 405),
    ("HEAD", f"{MAPS}?watch=true", None, {}, 405),
    ("DELETE", "/api/v1/namespaces/default", None, {}, 403),
]


def test_mistakes_are_the_clients(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        await api("POST", MAPS, config_map("c"))
        for method, path, body, headers, code in MISTAKES:
            answered, shown = await api(method, path, body, **headers)
            assert answered == code, (method, path, str(body)[:60], shown)
            if code >= 400 and method != "HEAD":
                assert (shown["kind"], shown["code"], bool(shown["message"])) == ("Status", code, True)

    with_server(tmp_path, work)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            server = ApiServer(ServerConfig(directory=tmp_path, port=taken.getsockname()[1]))
            try:
                with pytest.raises(ConfigError, match="cannot listen on 127"):
                    await server.start()
            finally:
                await server.stop()

    asyncio.run(main())


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PodwireError, match="cannot use its directory"):
        ApiServer(ServerConfig(directory=tmp_path / "file" / "state"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "ca.key").write_text("no key")
    (tmp_path / "bad" / "ca.crt").write_text("no certificate")
    with pytest.raises(PodwireError, match="certificates"):
        ApiServer(ServerConfig(directory=tmp_path / "bad"))


def test_plain_http_is_refused(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        reader, writer = await asyncio.open_connection(*api.server.url.removeprefix("https://").split(":"))
        writer.write(b"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert b"200" not in await asyncio.wait_for(reader.read(1000), 5)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    with_server(tmp_path, work)
