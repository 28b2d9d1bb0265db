"""List and watch as one endless, consistent stream of events.

First every object there is (ADDED), then SYNCED, then changes. When the API forgot where the
stream was (410) or was away too long, everything is listed again and the *difference* is told,
DELETED for what vanished included, after a RESTARTED and before another SYNCED: who follows the
events always holds what the API holds. While the API is away nothing is told and nothing is lost.

An object is told as the bytes it came in, with its name: who follows decodes the fields it uses and
no others. Lists are asked for page by page and told as they come, so that of 100,000 objects one page
is in memory; between slices of a page other tasks have their turn.
"""

from __future__ import annotations

import asyncio
import logging
import sys
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
Key = tuple[str, str]
log = logging.getLogger(__name__)

_BACKOFF = Backoff(first=0.1, most=5.0)
_SILENCE = 90.0  # seconds; bookmarks come more often, so a connection silent for longer is dead
_LARGEST = 64 * 1024 * 1024
_SLICE = 64  # objects told before others have a turn: some milliseconds of work for who follows


class Event(msgspec.Struct, frozen=True):
    """`kind`: ADDED, MODIFIED, DELETED of an object; SYNCED and RESTARTED of none.

    `raw` is the object in JSON. It is empty for one that vanished unseen: only its name is known.
    """

    kind: str
    namespace: str = ""
    name: str = ""
    raw: bytes | msgspec.Raw = b""

    @property
    def object(self) -> Object:
        """The object, all of it."""
        if not self.raw:
            place = {"namespace": self.namespace} if self.namespace else {}
            return {"metadata": {"name": self.name, **place}}
        found: Object = _decode(self.raw)
        return found


class ObjectMeta(msgspec.Struct, frozen=True, gc=False):
    name: str
    namespace: str | None = None
    uid: str | None = None
    resourceVersion: str | None = None


class Head(msgspec.Struct, frozen=True, gc=False):
    """Of any object: which one it is, and which version of it."""

    metadata: ObjectMeta

    @property
    def key(self) -> Key:
        namespace = self.metadata.namespace  # of few that are many objects': kept once
        return sys.intern(namespace) if namespace else "", self.metadata.name

    @property
    def version(self) -> Version:
        """One number, for of 100,000 objects two texts each are 14 MB. The halves are told apart."""
        uid, revision = self.metadata.uid or "", self.metadata.resourceVersion or ""
        return (hash(uid) & _HALF) << 64 | (hash(revision) & _HALF)


Version = int  # upper half: which object of that name; lower: which version of it
_HALF = (1 << 64) - 1


class ListMeta(msgspec.Struct, frozen=True):
    resourceVersion: str | None = None
    continue_: str | None = msgspec.field(name="continue", default=None)


class Page(msgspec.Struct, frozen=True):
    """A part of a list. Its items are views of the bytes it was read from."""

    items: list[msgspec.Raw] | None = None
    metadata: ListMeta = ListMeta()


class _Told(msgspec.Struct, frozen=True):
    """A line of a watch."""

    type: str
    object: msgspec.Raw


_decode = msgspec.json.Decoder().decode
_head = msgspec.json.Decoder(Head).decode
_told = msgspec.json.Decoder(_Told).decode


class Watch:
    """The state of one stream: what was told, and how far it is."""

    def __init__(
        self, client: Client, resource: Resource, namespace: str | None, query: dict[str, str]
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._query = query
        self._known: dict[Key, Version] = {}  # what was told
        self._revision = ""
        self._failures = 0
        self._synced = False  # who follows holds what a whole list had

    async def events(self) -> AsyncIterator[Event]:
        """For ever; ends only when it is closed. ApiError for what waiting cannot mend (401, 403, 404)."""
        while True:
            try:
                if not self._revision:
                    async for event in self._list():
                        yield event
                    self._back()
                async for event in self._follow():
                    yield event
            except ApiError as error:
                if error.code == 410:
                    if not self._revision:  # it forgot the list itself, between two pages: not at once again
                        await self._away(error)
                    self._revision = ""
                    continue
                if error.code < 500 and error.code not in (408, 409, 429):
                    raise
                await self._away(error)
            except msgspec.ValidationError as error:
                # Valid JSON that is no list or event (a proxy's answer, say): as if nobody had answered.
                self._revision = ""
                await self._away(Unreachable(f"what was answered is no {self._resource.kind}: {error}"))
            except (
                *(Unreachable, aiohttp.ClientError, OSError, TimeoutError),
                *(msgspec.DecodeError, RecursionError),
            ) as error:
                await self._away(error)

    async def _list(self) -> AsyncIterator[Event]:
        """The difference between what was told and what there is.

        A list that breaks off has told what it got to; what is not in it may be in what did not come, so
        nothing is taken for gone before its end.
        """
        missing = set(self._known)
        revision = ""
        async for page in self._client.pages(self._resource, self._namespace, self._query):
            if self._synced:
                self._synced = False
                yield Event("RESTARTED")
            # All pages are of the moment of the first, where the watch has to go on from.
            revision = revision or page.metadata.resourceVersion or ""
            for number, raw in enumerate(page.items or ()):
                if number % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
                head = _head(raw)
                missing.discard(head.key)
                for event in self._difference(head, raw):
                    yield event
        for key in missing:
            yield self._vanished(key)
        self._revision = revision
        self._synced = True
        yield Event("SYNCED")

    def _difference(self, head: Head, raw: msgspec.Raw) -> list[Event]:
        """What an object that is there has to be told, after what was told of its name."""
        key, version = head.key, head.version
        known = self._known.get(key)
        if known == version:
            return []
        events = []
        if known is not None and known >> 64 != version >> 64:  # another object of the same name
            events.append(self._vanished(key))
            known = None
        self._known[key] = version
        return [*events, Event("ADDED" if known is None else "MODIFIED", *key, raw)]

    def _vanished(self, key: Key) -> Event:
        del self._known[key]
        return Event("DELETED", *key)

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
                told = _told(line)
                for event in self._tell(told.type, told.object):
                    yield event

    def _tell(self, kind: str, raw: msgspec.Raw) -> list[Event]:
        if kind == "ERROR":
            body = _decode(raw)
            raise ApiError(
                int(body.get("code", 500)), str(body.get("reason", "")), str(body.get("message", ""))
            )
        if kind == "BOOKMARK":  # names no object
            self._revision = _bookmark(raw).metadata.resourceVersion or self._revision
            return []
        head = _head(raw)
        self._revision = head.metadata.resourceVersion or self._revision
        if kind == "DELETED":
            known = self._known.pop(head.key, None) is not None
            return [Event("DELETED", *head.key, raw)] if known else []
        return self._difference(head, raw)

    async def _away(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 3:
            log.warning("watching %s: %s; trying on", self._resource.plural, error)
        await asyncio.sleep(_BACKOFF.after(self._failures))

    def _back(self) -> None:
        if self._failures >= 3:
            log.info("watching %s again", self._resource.plural)
        self._failures = 0


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: ListMeta


_bookmark = msgspec.json.Decoder(_Bookmark).decode


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines as they come, so much at a time that other tasks have a turn."""
    rest: list[bytes] = []  # of a line that has not ended: joined once, when it has
    length = 0
    while True:
        chunk = await asyncio.wait_for(response.content.readany(), _SILENCE)
        if not chunk:
            return
        first, *lines = chunk.split(b"\n")
        rest.append(first)
        length += len(first)
        if length > _LARGEST:
            raise Unreachable("the Kubernetes API sent an event of more than 64 MiB")
        if not lines:
            continue
        *whole, last = [b"".join(rest), *lines]
        rest, length = [last], len(last)
        for number, line in enumerate(whole):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            if line.strip():
                yield line
