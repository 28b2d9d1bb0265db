"""The embedded API for who is in its process: `podwire.kube.Api` without a connection.

The same objects and rules as through HTTP, the same failures, and the same stream of events, made by the
same code (`podwire.kube.watch`) from lists and watches; so who is written on `kube.Api` cannot tell which
it has. What is given out and taken is copied: nobody changes the store by changing what they got.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from podwire.apiserver import patching, selectors, tables, watch
from podwire.apiserver.kinds import Kind
from podwire.apiserver.objects import Objects
from podwire.apiserver.options import DeleteOptions, Options
from podwire.apiserver.status import StatusError, bad_request
from podwire.apiserver.store import Stored
from podwire.base.errors import StorageError
from podwire.kube import MERGE, Event, Resource
from podwire.kube.watch import ListMeta, Page, Watch, selecting

Object = dict[str, Any]
Items = list[Object]
_PAGE = 500  # objects of a list between two turns for others
_decode = msgspec.json.Decoder().decode


class Local:
    """An API server's objects as a `kube.Api`. `manager` is who its fields are said to be managed by."""

    def __init__(self, objects: Objects, manager: str) -> None:
        self.away = ""  # it is in this process
        self._objects = objects
        self._options = Options(manager)

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        async with _turn():
            kind = self._kind(resource)
            return _given(kind, self._objects.get(kind, _place(kind, namespace), name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Items:
        found: Items = []
        query = selecting(label_selector, field_selector)
        async for page in self.pages(resource, namespace, query):
            found += [_decode(raw) for raw in page.items or ()]
        return found

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        async with _turn():
            kind = self._kind(resource)
            place = _place(kind, namespace or _namespace(body))
            return _given(kind, self._objects.create(kind, place, body, self._options).stored)

    async def update(self, resource: Resource, body: Object) -> Object:
        async with _turn():
            kind = self._kind(resource)
            place, name = _place(kind, _namespace(body)), body["metadata"]["name"]
            return _given(kind, self._objects.update(kind, place, name, body, self._options).stored)

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
        async with _turn():
            kind = self._kind(resource)
            if subresource and (subresource != "status" or not kind.has_status):
                raise StatusError(404, "NotFound", "the server could not find the requested resource")
            target = patching.Target(self._objects, kind, _place(kind, namespace), name, subresource)
            return _given(kind, target.patch(content_type, _copied(patch), self._options).stored)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        only: Mapping[str, str] = {},
    ) -> None:
        async with _turn():
            kind = self._kind(resource)
            options = DeleteOptions(uid=only.get("uid", ""), revision=only.get("resourceVersion", ""))
            try:
                self._objects.delete(kind, _place(kind, namespace), name, options)
            except StatusError as error:
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
        return Watch(self, resource, namespace, selecting(label_selector, field_selector)).events()

    # -- what a stream is made of

    async def pages(
        self, resource: Resource, namespace: str | None = None, query: Mapping[str, str] = {}
    ) -> AsyncIterator[Page]:
        """The objects as they are at the first page, so many at a time."""
        async with _turn():
            kind = self._kind(resource)
            test = self._selects(kind, query)
            revision = str(self._objects.store.revision)
            chosen = self._objects.store.list(kind.resource, namespace if kind.namespaced else "")
        for start in range(0, max(1, len(chosen)), _PAGE):
            part = [one for one in chosen[start : start + _PAGE] if test is None or test(one.object)]
            yield Page([msgspec.Raw(tables.render(kind, one)) for one in part], ListMeta(revision))
            await asyncio.sleep(0)

    @asynccontextmanager
    async def lines(
        self, resource: Resource, namespace: str | None, query: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """What came after a revision; it ends where more is told than is read, as a connection would."""
        async with _turn():
            kind = self._kind(resource)
            place = namespace if kind.namespaced else None
            watcher = watch.Watcher(
                self._objects.store,
                kind.resource,
                place,
                self._selects(kind, query),
                lambda stored: tables.render(kind, stored),
            )
            watcher.open(int(query["resourceVersion"]))
        try:
            yield _told(watcher, kind)
        finally:
            watcher.close()

    def _kind(self, resource: Resource) -> Kind:
        found = self._objects.registry.find(resource.group, resource.version, resource.plural)
        if found is None:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        return found

    def _selects(self, kind: Kind, query: Mapping[str, str]) -> selectors.Predicate | None:
        labels, fields = query.get("labelSelector"), query.get("fieldSelector")
        return watch.every(
            selectors.labels(labels) if labels else None,
            selectors.fields(fields, kind.fields) if fields else None,
        )


async def _told(watcher: watch.Watcher, kind: Kind) -> AsyncIterator[bytes]:
    while not watcher.overrun:
        events = await watcher.next(watch.BOOKMARK_SECONDS)
        for event in events or [watcher.bookmark(kind.api_version, kind.kind)]:
            yield event


@asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """One request: others have their turn before it, and what fails does so as an answer."""
    await asyncio.sleep(0)
    try:
        yield
    except StorageError as error:
        raise StatusError(500, "InternalError", str(error)) from error


def _given(kind: Kind, stored: Stored) -> Object:
    found: Object = _decode(tables.render(kind, stored))
    return found


def _copied(value: Any) -> Any:
    return _decode(msgspec.json.encode(value))


def _place(kind: Kind, namespace: str | None) -> str:
    if not kind.namespaced:
        return ""
    if not namespace:
        raise bad_request(f"{kind.plural} live in a namespace; name it")
    return namespace


def _namespace(body: Object) -> str:
    return body.get("metadata", {}).get("namespace") or "default"
