"""metadata.managedFields: which manager set which field, kept through every write. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.apiserver.kinds import Kind
from podwire.apiserver.options import Options
from podwire.apiserver.patch import fields
from podwire.apiserver.patch.fields import Paths

Object = dict[str, Any]
_UNTRACKED = frozenset({"leases.coordination.k8s.io", "events", "endpoints"})
_MANAGERS = 40  # managers by Update that are kept apart


class Owner(msgspec.Struct, frozen=True):
    """A manager in one role."""

    manager: str
    operation: str
    subresource: str
    api_version: str


Managed = dict[Owner, tuple[Paths, str]]


def read(entries: Any, moment: str) -> Managed:
    """What managedFields say: owner → fields and the time of the last change; `moment` where none is said."""
    found: Managed = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        words = [entry.get(name) for name in ("manager", "operation", "subresource", "apiVersion")]
        owner = Owner(*(word if isinstance(word, str) else "" for word in words))
        time = entry.get("time")
        found[owner] = (fields.decode(entry.get("fieldsV1")), time if isinstance(time, str) else moment)
    return found


def write(managed: Managed) -> list[Object]:
    """managedFields, oldest change first; managers without fields are left out."""
    entries = []
    for owner, (owned, time) in sorted(
        managed.items(), key=lambda one: (one[0].operation, one[1][1], one[0].manager)
    ):
        if not owned:
            continue
        entry: Object = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields.encode(owned),
        }
        if owner.subresource:
            entry["subresource"] = owner.subresource
        entries.append(entry)
    return entries[-_MANAGERS:]


def record(
    kind: Kind,
    body: Object,
    old: Object | None,
    options: Options,
    moment: str,
    sent: Any = None,
    subresource: str = "",
) -> None:
    """Give `body` its managedFields after a write by ``options.manager`` at `moment`.

    `sent` is what the client sent as managedFields: an empty list forgets all, another list than the
    stored one replaces it.
    """
    meta = body["metadata"]
    before = (old or {}).get("metadata", {}).get("managedFields")
    if options.applied is not None:
        entries = options.applied
    elif not options.manager or kind.resource in _UNTRACKED:
        entries = before
    elif sent is not None and sent != before and old is not None:
        entries = write(read(sent, moment))
    else:
        entries = _updated(
            kind, body, old, before, Owner(options.manager, "Update", subresource, kind.api_version), moment
        )
    if entries:
        meta["managedFields"] = entries
    else:
        meta.pop("managedFields", None)


def _updated(
    kind: Kind, body: Object, old: Object | None, before: Any, owner: Owner, moment: str
) -> list[Object]:
    schema = fields.schema_of(kind)
    have = fields.paths(schema, body)
    if old is None:
        changed, removed = have, set()
    else:
        had = fields.paths(schema, old)
        removed = had - have
        changed = {
            path
            for path in have
            if path not in had or fields.lookup(schema, body, path) != fields.lookup(schema, old, path)
        }
        changed = {path for path in changed if not _only_holds(path, have, had)}
    if not changed and not removed:
        return list(before or [])
    managed = read(before, moment)
    for one, (owned, time) in list(managed.items()):
        if one != owner:
            managed[one] = (owned - changed - removed, time)
    mine = managed.get(owner, (set(), ""))[0]
    managed[owner] = ((mine | changed) - removed, moment)
    return write(managed)


def _only_holds(path: fields.Path, have: Paths, had: Paths) -> bool:
    """Whether `path` is an item of a keyed list that was there before: its members changed, not itself."""
    return path[-1].startswith("k:") and path in have and path in had


def same(body: Object, old: Object) -> bool:
    """Whether two states of an object differ in nothing but the times in managedFields."""
    return _bare(body) == _bare(old)


def _bare(body: Object) -> Object:
    meta = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
    if "managedFields" in meta:
        meta["managedFields"] = [{**entry, "time": ""} for entry in meta["managedFields"]]
    return {**body, "metadata": meta}
