"""Server-side apply: a manager says what it wants; what it no longer says goes. Pure.

What another manager set to another value is a conflict, unless the apply is forced: then it changes
hands. Fields of the last apply that nobody else owns and that are not said any more are removed.
"""

from __future__ import annotations

from typing import Any

from podwire.apiserver.kinds import Kind
from podwire.apiserver.patch import fields
from podwire.apiserver.patch.fields import MISSING, Paths
from podwire.apiserver.patch.managed import Managed, Owner, read, write
from podwire.apiserver.schemas.resolve import resolve
from podwire.apiserver.status import StatusError

Object = dict[str, Any]


def apply(
    kind: Kind, live: Object | None, config: Object, owner: Owner, moment: str, *, force: bool
) -> tuple[Object, list[Object]]:
    """The object after `config` was applied to `live` (None: there is none yet), and its managedFields.

    `owner` applies, at `moment`.
    """
    schema = fields.schema_of(kind)
    wanted = fields.paths(schema, config)
    managed = read((live or {}).get("metadata", {}).get("managedFields"), moment)
    if live is None:
        return config, write({owner: (wanted, moment)})
    conflicts = _conflicts(schema, live, config, wanted, managed, owner)
    if conflicts and not force:
        raise _conflict(conflicts)
    taken = {path for path, _ in conflicts}
    for other, (owned, time) in list(managed.items()):
        if other != owner:
            managed[other] = (owned - taken, time)
    merged = merge(schema, live, config)
    before, since = managed.get(owner, (set(), moment))
    held = {path for other, (owned, _) in managed.items() if other != owner for path in owned}
    for path in sorted(before - wanted, key=len):
        if path not in held and not _holds(path, held):
            fields.remove(schema, merged, path)
    managed[owner] = (wanted, since if wanted == before and merged == live else moment)
    return merged, write(managed)


def merge(schema: Object, live: Any, config: Any) -> Any:
    """`config` laid over `live`: maps by member, keyed lists by item, sets as union, the rest replaced."""
    if isinstance(live, dict) and isinstance(config, dict) and not fields.is_atomic(schema):
        properties = schema.get("properties") or {}
        result = dict(live)
        for name, value in config.items():
            inner = fields.member_schema(schema, properties, name)
            result[name] = merge(inner, live[name], value) if name in live else value
        return result
    if isinstance(live, list) and isinstance(config, list):
        kind = fields.list_type(schema)
        if kind == "map":
            return _keyed(schema, live, config)
        if kind == "set":
            return [*live, *(one for one in config if one not in live)]
    return config


def _keyed(schema: Object, live: list[Any], config: list[Any]) -> list[Any]:
    items = resolve(schema.get("items") or {})
    said = {fields.key_step(schema, one): one for one in config}
    result, seen = [], set()
    for one in live:
        step = fields.key_step(schema, one)
        seen.add(step)
        result.append(merge(items, one, said[step]) if step is not None and step in said else one)
    result += [one for one in config if fields.key_step(schema, one) not in seen]
    return result


def _conflicts(
    schema: Object, live: Object, config: Object, wanted: Paths, managed: Managed, owner: Owner
) -> list[tuple[fields.Path, Owner]]:
    found = []
    for other, (owned, _) in managed.items():
        if other == owner:
            continue
        for path in sorted(wanted & owned):
            if path[-1].startswith("k:"):
                continue
            present = fields.lookup(schema, live, path)
            if present is not MISSING and present != fields.lookup(schema, config, path):
                found.append((path, other))
    return found


def _holds(path: fields.Path, held: Paths) -> bool:
    """Whether somebody owns something below `path`."""
    return any(len(other) > len(path) and other[: len(path)] == path for other in held)


def _conflict(conflicts: list[tuple[fields.Path, Owner]]) -> StatusError:
    by_owner: dict[Owner, list[str]] = {}
    for path, owner in conflicts:
        by_owner.setdefault(owner, []).append(fields.shown(path))
    sentences, causes = [], []
    for owner, places in by_owner.items():
        through = f' with subresource "{owner.subresource}"' if owner.subresource else ""
        how = "" if owner.operation == "Apply" else f" using {owner.api_version}"
        who = f'conflict with "{owner.manager}"{through}{how}'
        sentences.append(
            f"{who}: {', '.join(places)}" if len(places) == 1 else f"{who}:\n- " + "\n- ".join(places)
        )
        causes += [{"reason": "FieldManagerConflict", "message": who, "field": place} for place in places]
    count = len(conflicts)
    message = f"Apply failed with {count} conflict{'s' if count > 1 else ''}: " + "; ".join(sentences)
    return StatusError(409, "Conflict", message, {"causes": causes})
