"""Objects on disk and in memory, and what changed: the ground of the embedded API.

One SQLite file (WAL) holds every object and a bounded history of changes; memory holds the same,
so that reads touch no disk. `revision` is one counter over all objects: it is every object's
resourceVersion. Each write is one transaction: it is on disk whole or not at all, and only then
in memory. Listeners hear of it synchronously, in order.

Not thread-safe: everything happens on the loop's thread, and no write awaits.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from podwire.base.aio import boundary
from podwire.base.errors import StorageError

Object = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

HISTORY = 4096  # changes kept per resource; an older watch gets 410 Gone
_SLACK = 512  # rows beyond that before the file is compacted

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    revision INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
    revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, resource TEXT NOT NULL,
    namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, previous BLOB);
CREATE INDEX IF NOT EXISTS history_by_resource ON history (resource, revision);
CREATE TABLE IF NOT EXISTS horizons (resource TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
"""


class Stored(NamedTuple):
    """An object as it is kept. Never change `object`: take `copy()`."""

    revision: int
    object: Object
    encoded: bytes

    def copy(self) -> Object:
        copied: Object = _decode(self.encoded)
        return copied

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.object["metadata"].get("namespace", ""))


Items = list[Stored]
Names = list[str]


class Change(NamedTuple):
    """One write. `kind` is ADDED, MODIFIED or DELETED; `previous` is what was there before."""

    revision: int
    kind: str
    resource: str
    stored: Stored
    previous: Stored | None


class TooOld(Exception):
    """The history no longer reaches back to the revision asked for."""


class Store:
    """All objects by (resource, namespace, name). A resource is ``pods`` or ``deployments.apps``."""

    def __init__(self, path: Path | str, *, history: int = HISTORY) -> None:
        self.path = str(path)
        self.revision = 0
        self.listeners: list[Callable[[Change], None]] = []
        self._kept = history
        self._objects: dict[str, dict[str, dict[str, Stored]]] = {}
        self._changes: dict[str, deque[Change]] = {}
        self._horizon: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        try:
            if self.path != ":memory:":
                Path(self.path).touch(mode=0o600)  # it holds Secrets; its journals get the mode it has
            self._file = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.executescript(_SCHEMA)
            self._load()
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            raise StorageError(
                f"cannot open the API server's database {self.path}: {error}",
                hint="check the directory's owner, its rights and the room on its disk",
            ) from error

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        return self._objects.get(resource, {}).get(namespace, {}).get(name)

    def list(self, resource: str, namespace: str | None = None) -> Items:
        """All of a resource (or of one namespace), by namespace and name."""
        spaces = self._objects.get(resource, {})
        chosen = sorted(spaces) if namespace is None else [namespace] if namespace in spaces else []
        return [spaces[space][name] for space in chosen for name in sorted(spaces[space])]

    def resources(self) -> Names:
        """Resources that have objects."""
        return sorted(resource for resource, spaces in self._objects.items() if any(spaces.values()))

    def count(self, resource: str) -> int:
        return sum(len(names) for names in self._objects.get(resource, {}).values())

    def put(self, resource: str, namespace: str, name: str, body: Object) -> Stored:
        """Create or replace, with the next resourceVersion. `body` stays the caller's."""
        previous = self.get(resource, namespace, name)
        revision = self.revision + 1
        encoded = _encode({**body, "metadata": {**body["metadata"], "resourceVersion": str(revision)}})
        stored = Stored(revision, _decode(encoded), encoded)
        change = Change(revision, "MODIFIED" if previous else "ADDED", resource, stored, previous)
        self._commit(change, namespace, name)
        self._objects.setdefault(resource, {}).setdefault(namespace, {})[name] = stored
        self._announce(change)
        return stored

    def remove(self, resource: str, namespace: str, name: str) -> Stored | None:
        """Delete; the last state, with the deletion's revision, is what watches see."""
        previous = self.get(resource, namespace, name)
        if previous is None:
            return None
        revision = self.revision + 1
        body = previous.copy()
        body["metadata"]["resourceVersion"] = str(revision)
        stored = Stored(revision, body, _encode(body))
        change = Change(revision, "DELETED", resource, stored, previous)
        self._commit(change, namespace, name)
        space = self._objects[resource][namespace]
        del space[name]
        if not space:
            del self._objects[resource][namespace]
        self._announce(change)
        return stored

    def since(self, resource: str, revision: int) -> Iterator[Change]:
        """Changes of `resource` after `revision`, oldest first. TooOld if some were forgotten."""
        if revision < self._horizon.get(resource, 0):
            raise TooOld(f"too old resource version: {revision} ({self.revision})")
        changes = self._changes.get(resource, ())
        return (change for change in list(changes) if change.revision > revision)

    def close(self) -> None:
        self._file.close()

    def _commit(self, change: Change, namespace: str, name: str) -> None:
        stored, previous = change.stored, change.previous
        run = self._file.execute
        try:
            run("BEGIN IMMEDIATE")
            if change.kind == "DELETED":
                key = (change.resource, namespace, name)
                run("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", key)
            else:
                row = (change.resource, namespace, name, change.revision, stored.encoded)
                run("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?)", row)
            was = previous.encoded if previous else None
            entry = (change.revision, change.kind, change.resource, namespace, name, stored.encoded, was)
            run("INSERT INTO history VALUES (?,?,?,?,?,?,?)", entry)
            self._compact(change.resource)
            run("COMMIT")
        except sqlite3.Error as error:
            if self._file.in_transaction:
                run("ROLLBACK")
            raise StorageError(
                f"cannot write {change.resource} {name} to {self.path}: {error}",
                hint="nothing was changed; make room on the disk and try again",
            ) from error
        self.revision = change.revision

    def _compact(self, resource: str) -> None:
        rows = self._rows.get(resource, 0) + 1
        if rows > self._kept + _SLACK:
            changes = self._changes[resource]
            horizon = changes[-self._kept].revision
            self._file.execute("DELETE FROM history WHERE resource=? AND revision<=?", (resource, horizon))
            self._file.execute("INSERT OR REPLACE INTO horizons VALUES (?,?)", (resource, horizon))
            rows = self._kept
        self._rows[resource] = rows

    def _announce(self, change: Change) -> None:
        changes = self._changes.setdefault(change.resource, deque())
        changes.append(change)
        while len(changes) > self._kept + _SLACK:
            self._horizon[change.resource] = changes.popleft().revision
        for listener in tuple(self.listeners):
            # It is written: that somebody who hears of it fails is not the failure of who wrote it.
            with boundary(f"hearing of {change.resource} {change.stored.namespace}/{change.stored.name}"):
                listener(change)

    def _load(self) -> None:
        run = self._file.execute
        for resource, namespace, name, revision, body in run("SELECT * FROM objects"):
            stored = Stored(revision, _decode(body), body)
            self._objects.setdefault(resource, {}).setdefault(namespace, {})[name] = stored
        for revision, kind, resource, _, _, body, was in run("SELECT * FROM history ORDER BY revision"):
            previous = None
            if was is not None:
                before = _decode(was)
                previous = Stored(int(before["metadata"]["resourceVersion"]), before, was)
            change = Change(revision, kind, resource, Stored(revision, _decode(body), body), previous)
            self._changes.setdefault(resource, deque()).append(change)
        self._rows = {resource: len(changes) for resource, changes in self._changes.items()}
        self._horizon = dict(run("SELECT resource, revision FROM horizons"))
        # The newest change of a resource is never forgotten, so the counter is in the history.
        self.revision = run("SELECT COALESCE(MAX(revision), 0) FROM history").fetchone()[0]
