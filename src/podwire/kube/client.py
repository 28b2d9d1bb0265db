"""Requests to a Kubernetes API, one method a verb.

Failures are `ApiError` (the API answered with a Status) or `Unreachable` (it did not answer).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from podwire.base.errors import ApiError, Unreachable
from podwire.kube import credentials
from podwire.kube.api import MERGE
from podwire.kube.credentials import Access
from podwire.kube.lines import lines
from podwire.kube.resources import Resource, known
from podwire.kube.watch import Event, Page, Watch, selecting

Object = dict[str, Any]
Items = list[Object]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_page = msgspec.json.Decoder(Page).decode

_PAGE = 500  # objects in a part of a list: of pods, about 3 MB


class Client:
    """One connection pool to one server. Use as ``async with Client.from_kubeconfig(path) as client``."""

    def __init__(self, access: Access, *, agent: str = "podwire") -> None:
        self.access = access
        self.namespace = access.namespace
        self.away = ""  # why the last request was not answered; empty = it was
        self._agent = agent
        self._session: aiohttp.ClientSession | None = None
        self._discovered: dict[tuple[str, str], Resource] = {}

    @classmethod
    def from_kubeconfig(
        cls, path: Path | str, context: str | None = None, *, agent: str = "podwire"
    ) -> Client:
        return cls(credentials.from_kubeconfig(path, context), agent=agent)

    @classmethod
    def in_cluster(cls, *, agent: str = "podwire") -> Client:
        return cls(credentials.in_cluster(), agent=agent)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- verbs

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        return await self.request("GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Items:
        """All objects, with kind and apiVersion each."""
        items: Items = []
        async for page in self.pages(resource, namespace, selecting(label_selector, field_selector)):
            for raw in page.items or ():
                item: Object = _decode(raw)
                item.setdefault("kind", resource.kind)
                item.setdefault("apiVersion", resource.api_version)
                items.append(item)
        return items

    async def pages(
        self, resource: Resource, namespace: str | None = None, query: Mapping[str, str] = {}
    ) -> AsyncIterator[Page]:
        """The parts of a list, one after the other: the next is asked for when this one is done with."""
        asked = {**query, "limit": str(_PAGE)}
        while True:
            raw = await self._read("GET", resource.path(namespace), query=asked)
            page = _page(raw)
            del raw  # what is left of it is what is left of the page
            yield page
            if not page.metadata.continue_:
                return
            asked["continue"] = page.metadata.continue_

    @asynccontextmanager
    async def lines(
        self, resource: Resource, namespace: str | None, query: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The events of a watch as they come, for as long as the server and the connection let it."""
        path = resource.path(namespace)
        async with self.open("GET", path, query=query, timeout=None) as response:
            yield lines(response)

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        return await self.request("POST", resource.path(_place(resource, body, namespace)), body=body)

    async def update(self, resource: Resource, body: Object) -> Object:
        """Replace; 409 (ApiError) if it was changed since `body` was read."""
        return await self.request("PUT", _path(resource, body), body=body)

    async def update_status(self, resource: Resource, body: Object) -> Object:
        return await self.request("PUT", _path(resource, body, "status"), body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        subresource: str = "",
        content_type: str = MERGE,
    ) -> Object:
        """Change a part; a JSON merge patch unless `content_type` says otherwise."""
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, body=patch, content_type=content_type)

    async def apply(
        self, resource: Resource, body: Object, *, manager: str, force: bool = True, subresource: str = ""
    ) -> Object:
        """Server-side apply as field manager `manager`. A field that the API does not know is refused: a
        mistyped one would be left out without a word, and a policy would allow what it should not."""
        query = {
            "fieldManager": manager,
            "force": "true" if force else "false",
            "fieldValidation": "Strict",
        }
        path = _path(resource, body, subresource)
        return await self.request(
            "PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml"
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace: int | None = None,
        propagation: str = "",
        only: Mapping[str, str] = {},
    ) -> None:
        """Delete; what is not there is deleted already. `only` the one of this uid, this resourceVersion:
        another is a conflict."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if propagation:
            body["propagationPolicy"] = propagation
        if only:
            body["preconditions"] = dict(only)
        try:
            await self.request("DELETE", resource.path(namespace, name), body=body)
        except ApiError as error:
            if error.code != 404:
                raise

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[Event]:
        """The objects and their changes, for ever; see `podwire.kube.watch`."""
        return Watch(self, resource, namespace, selecting(label_selector, field_selector)).events()

    async def resource_of(self, api_version: str, kind: str) -> Resource:
        """Where a kind is served: known here, or asked for once."""
        found = known(api_version, kind) or self._discovered.get((api_version, kind))
        if found is not None:
            return found
        group, _, version = api_version.rpartition("/")
        path = f"/apis/{api_version}" if group else f"/api/{version}"
        served = await self.request("GET", path)
        for one in served.get("resources") or []:
            if one["kind"] == kind and "/" not in one["name"]:
                found = Resource(group, version, one["name"], kind, one["namespaced"])
                self._discovered[api_version, kind] = found
                return found
        raise ApiError(404, "NotFound", f"the API serves no {kind} in {api_version}")

    # -- transport

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request; the decoded answer. ApiError where it is a failure."""
        raw = await self._read(method, path, query=query, body=body, content_type=content_type)
        try:
            answered = _decode(raw) if raw else {}
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._away(error) from error
        if not isinstance(answered, dict):
            raise self._away(TypeError("the answer is no object"))
        return answered

    async def _read(self, method: str, path: str, **request: Any) -> bytes:
        async with self.open(method, path, **request) as response:
            try:
                return await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._away(error) from error

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = 60.0,
    ) -> _Opened:
        """A request whose answer is read by the caller: ``async with client.open(…) as response``."""
        return _Opened(self, method, path, query or {}, body, content_type, timeout)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.access.tls(), limit=0, keepalive_timeout=300)
            self._session = aiohttp.ClientSession(
                connector=connector, headers={"User-Agent": self._agent, "Accept": "application/json"}
            )
        return self._session

    def _authorization(self) -> dict[str, str]:
        token = self.access.token
        if self.access.token_file:
            token = Path(self.access.token_file).read_text().strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _away(self, error: Exception) -> Unreachable:
        self.away = (
            f"the Kubernetes API at {self.access.server} does not answer: {error or type(error).__name__}"
        )
        return Unreachable(self.away)


class _Opened:
    """A request under way; entering it sends it and judges the answer's code."""

    def __init__(
        self,
        client: Client,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        content_type: str,
        timeout: float | None,
    ) -> None:
        self._client = client
        self._arguments = (method, path, query, body, content_type, timeout)
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        method, path, query, body, content_type, timeout = self._arguments
        client = self._client
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=10)
        try:
            headers = client._authorization()  # reads the token's file, which may be away as well
            if body is not None:
                headers["Content-Type"] = content_type
            response = await client._connected().request(
                method,
                client.access.server + path,
                params=query,
                data=_encode(body) if body is not None else None,
                headers=headers,
                timeout=limits,
                server_hostname=client.access.server_name or None,
            )
            client.away = ""
            if response.status >= 400:
                raw = await response.read()
                response.release()
                raise _failure(response.status, raw)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise client._away(error) from error
        self._response = response
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            if error is None and self._response.content.at_eof():
                self._response.release()
            else:
                self._response.close()


def _failure(code: int, raw: bytes) -> ApiError:
    try:
        body = _decode(raw)
        return ApiError(code, str(body.get("reason", "")), str(body.get("message", "")))
    except (msgspec.DecodeError, AttributeError):
        return ApiError(code, "", raw[:200].decode(errors="replace"))


def _place(resource: Resource, body: Object, namespace: str | None = None) -> str | None:
    if not resource.namespaced:
        return None
    return namespace or body.get("metadata", {}).get("namespace") or "default"


def _path(resource: Resource, body: Object, subresource: str = "") -> str:
    return resource.path(_place(resource, body), body["metadata"]["name"], subresource)
