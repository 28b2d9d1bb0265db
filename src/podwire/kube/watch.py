"""List and watch as one endless, consistent stream of events.

First every object there is (ADDED), then SYNCED, then changes. When the API forgot where the
stream was (410) or was away too long, everything is listed again and the *difference* is told,
DELETED for what vanished included, after a RESTARTED and before another SYNCED: who follows the
events always holds what the API holds. While the API is away nothing is told and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from podwire.base.aio import Backoff
from podwire.base.errors import ApiError, Unreachable

if TYPE_CHECKING:
    from podwire.kube.client import Client
    from podwire.kube.resources import Resource

Object = dict[str, Any]
log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder().decode

_BACKOFF = Backoff(first=0.1, most=5.0)
_SILENCE = 90.0  # seconds; bookmarks come more often, so a connection silent for longer is dead
_LARGEST = 64 * 1024 * 1024


class Event(msgspec.Struct, frozen=True):
    """`kind`: ADDED, MODIFIED, DELETED with the object; SYNCED and RESTARTED with an empty one."""

    kind: str
    object: Object = {}


class Watch:
    """The state of one stream: what was told, and how far it is."""

    def __init__(
        self, client: Client, resource: Resource, namespace: str | None, query: dict[str, str]
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._query = query
        self._told: dict[tuple[str, str], tuple[str, str]] = {}  # key → uid, resourceVersion
        self._revision = ""
        self._failures = 0
        self._lists = 0

    async def events(self) -> AsyncIterator[Event]:
        """For ever; ends only when it is closed. ApiError for what waiting cannot mend (401, 403, 404)."""
        while True:
            try:
                if not self._revision:
                    for event in await self._relist():
                        yield event
                    self._back()
                async for event in self._follow():
                    yield event
            except ApiError as error:
                if error.code == 410:
                    self._revision = ""
                    continue
                if error.code < 500 and error.code not in (408, 409, 429):
                    raise
                await self._away(error)
            except (Unreachable, aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                await self._away(error)
            except (KeyError, TypeError, AttributeError, RecursionError) as error:
                # Valid JSON that is no list or event (a proxy's answer, say): as if nobody had answered.
                self._revision = ""
                await self._away(Unreachable(f"what was answered is no {self._resource.kind}: {error!r}"))

    async def _relist(self) -> list[Event]:
        selectors = (self._query.get("labelSelector", ""), self._query.get("fieldSelector", ""))
        items, revision = await self._client.list_at(self._resource, self._namespace, *selectors)
        events = [Event("RESTARTED")] if self._lists else []
        found = {_key(item): item for item in items}
        for key in [key for key in self._told if key not in found]:
            events.append(self._vanished(key))
        for key, item in found.items():
            told = self._told.get(key)
            identity = _identity(item)
            if told is not None and told[0] != identity[0]:
                events.append(self._vanished(key))
                told = None
            if told != identity:
                events.append(Event("ADDED" if told is None else "MODIFIED", item))
                self._told[key] = identity
        self._revision = revision
        self._lists += 1
        return [*events, Event("SYNCED")]

    def _vanished(self, key: tuple[str, str]) -> Event:
        uid, revision = self._told.pop(key)
        namespace, name = key
        meta = {
            "name": name,
            "uid": uid,
            "resourceVersion": revision,
            **({"namespace": namespace} if namespace else {}),
        }
        resource = self._resource
        return Event("DELETED", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})

    async def _follow(self) -> AsyncIterator[Event]:
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._revision,
            "timeoutSeconds": "3000",
        }
        path = self._resource.path(self._namespace)
        async with self._client.open("GET", path, query=query, timeout=None) as response:
            self._back()
            async for line in _lines(response):
                event = _decode(line)
                told = self._tell(event["type"], event["object"])
                if told is not None:
                    yield told

    def _tell(self, kind: str, body: Object) -> Event | None:
        if kind == "ERROR":
            raise ApiError(
                int(body.get("code", 500)), str(body.get("reason", "")), str(body.get("message", ""))
            )
        self._revision = body["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return None
        key = _key(body)
        if kind == "DELETED":
            known = self._told.pop(key, None) is not None
            return Event("DELETED", body) if known else None
        told = self._told.get(key)
        self._told[key] = _identity(body)
        if told == self._told[key]:
            return None
        return Event("ADDED" if told is None else "MODIFIED", body)

    async def _away(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 3:
            log.warning("watching %s: %s; trying on", self._resource.plural, error)
        await asyncio.sleep(_BACKOFF.after(self._failures))

    def _back(self) -> None:
        if self._failures >= 3:
            log.info("watching %s again", self._resource.plural)
        self._failures = 0


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    while True:
        chunk = await asyncio.wait_for(response.content.readany(), _SILENCE)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
        if len(rest) > _LARGEST:
            raise Unreachable("the Kubernetes API sent an event of more than 64 MiB")
        for line in lines:
            if line.strip():
                yield line


def _key(body: Object) -> tuple[str, str]:
    meta = body["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])


def _identity(body: Object) -> tuple[str, str]:
    meta = body["metadata"]
    return str(meta.get("uid", "")), str(meta.get("resourceVersion", ""))
