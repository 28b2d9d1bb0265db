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
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import aiohttp
import msgspec

from podwire.base.aio import Backoff, seldom
from podwire.base.errors import ApiError, Unreachable
from podwire.kube.resources import Resource

Object = dict[str, Any]
Key = tuple[str, str]
log = logging.getLogger(__name__)

_BACKOFF = Backoff(first=0.1, most=5.0)
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


class Lists(Protocol):
    """What a stream is made of: lists, and what came after one. ApiError 410 where that is forgotten."""

    def pages(
        self, resource: Resource, namespace: str | None = None, query: Mapping[str, str] = {}
    ) -> AsyncIterator[Page]:
        """The parts of a list, one after the other."""
        ...

    def lines(
        self, resource: Resource, namespace: str | None, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The events of a watch, in JSON. Entered, the API has answered; the lines may end at any time."""
        ...


def selecting(label_selector: str, field_selector: str) -> dict[str, str]:
    """The query of a list or a watch; what is empty selects all."""
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: text for name, text in given.items() if text}


class Watch:
    """The state of one stream: what was told, and how far it is."""

    def __init__(
        self, lists: Lists, resource: Resource, namespace: str | None, query: dict[str, str]
    ) -> None:
        self._lists = lists
        self._resource = resource
        self._namespace = namespace
        self._query = query
        self._known: dict[Key, Version] = {}  # what was told
        self._revision = ""
        self._failures = 0
        self._told = False  # whether this watch has told anything
        self._synced = False  # who follows holds what a whole list had
        self._nameless = 0  # objects that were left out
        self._barren = 0  # watches in a row that told nothing, or nothing that is an event

    async def events(self) -> AsyncIterator[Event]:
        """For ever; ends only when it is closed. ApiError for what waiting cannot mend (401, 403, 404)."""
        while True:
            try:
                if not self._revision:
                    async for event in self._list():
                        yield event
                    self._back()
                self._told = False
                async for event in self._follow():
                    yield event
                if not self._told:
                    await self._fruitless(Unreachable("the watch ended before it told anything"))
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
                problem = f"what was answered is no {self._resource.kind}: {error}"
                await self._fruitless(Unreachable(problem))
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
        named = unnamed = 0
        async for page in self._lists.pages(self._resource, self._namespace, self._query):
            if self._synced:
                self._synced = False
                yield Event("RESTARTED")
            # All pages are of the moment of the first, where the watch has to go on from.
            revision = revision or page.metadata.resourceVersion or ""
            for number, raw in enumerate(page.items or ()):
                if number % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
                head = self._named(raw)
                if head is None:
                    unnamed += 1
                    continue
                named += 1
                missing.discard(head.key)
                for event in self._difference(head, raw):
                    yield event
        if unnamed and not named:  # a proxy's answer, say: nothing is gone because of that
            raise Unreachable(f"what was answered is no list of {self._resource.plural}")
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

    def _named(self, raw: msgspec.Raw) -> Head | None:
        """Which object it is; None for one that has no name. Nobody could say anything of that one, so it is
        left out: the stream is not wrong, for the others of it are told."""
        try:
            head = _head(raw)
            if head.metadata.name:
                return head
            problem = "the name is empty"
        except msgspec.ValidationError as error:
            problem = str(error)
        self._nameless += 1
        if seldom(self._nameless):
            what = f"{self._nameless} {self._resource.plural} without a usable name"
            log.warning("%s were told and left out: %s", what, problem)
        return None

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
        async with self._lists.lines(self._resource, self._namespace, query) as lines:
            self._back()
            async for line in lines:
                told, before = _told(line), self._revision
                events = self._tell(told.type, told.object)
                if events or self._revision != before:
                    self._told, self._barren = True, 0
                for event in events:
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
        head = self._named(raw)
        if head is None:
            return []
        self._revision = head.metadata.resourceVersion or self._revision
        if kind == "DELETED":
            known = self._known.pop(head.key, None) is not None
            return [Event("DELETED", *head.key, raw)] if known else []
        return self._difference(head, raw)

    async def _fruitless(self, error: Exception) -> None:
        """That the API was reached, and lists well, says nothing here: it may go on like this."""
        self._barren += 1
        self._failures = max(self._failures, self._barren - 1)
        await self._away(error)

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
