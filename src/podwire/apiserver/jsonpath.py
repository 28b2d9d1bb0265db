"""The JSONPath of printer columns: members, indexes, ``[*]`` and ``[?(@.type=='x')]``. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\]\\])+)
      | \[(?P<index>\d+)\]
      | \[(?P<all>\*)\]
      | \[['"](?P<quoted>[^'"]+)['"]\]
      | \[\?\(@\.(?P<field>[\w.]+)\s*==\s*(?P<quote>['"])(?P<value>.*?)(?P=quote)\)\]""",
    re.VERBOSE,
)


@lru_cache(maxsize=512)
def _steps(path: str) -> tuple[tuple[str, Any], ...]:
    steps: list[tuple[str, Any]] = []
    rest = 0
    while rest < len(path):
        found = _STEP.match(path, rest)
        if found is None:
            raise ValueError(f"cannot be read from {path[rest:][:40]!r} on")
        rest = found.end()
        if found["name"] is not None:
            steps.append(("name", re.sub(r"\\(.)", r"\1", found["name"])))
        elif found["quoted"] is not None:
            steps.append(("name", found["quoted"]))
        elif found["index"] is not None:
            steps.append(("index", int(found["index"])))
        elif found["all"] is not None:
            steps.append(("all", None))
        else:
            steps.append(("where", (found["field"].split("."), found["value"])))
    return tuple(steps)


def fault(path: str) -> str:
    """What is wrong with a path, for whoever wrote it; empty: nothing."""
    try:
        return "" if _steps(path) else "leads nowhere"
    except ValueError as error:
        return str(error)


def find(path: str, body: Any) -> list[Any]:
    """Everything `path` leads to; empty where it leads nowhere, and where it is none."""
    if fault(path):
        return []
    found = [body]
    for kind, step in _steps(path):
        found = [inner for one in found for inner in _follow(kind, step, one)]
    return found


def _follow(kind: str, step: Any, body: Any) -> list[Any]:
    if kind == "name":
        return [body[step]] if isinstance(body, dict) and step in body else []
    if not isinstance(body, list):
        return list(body.values()) if kind == "all" and isinstance(body, dict) else []
    if kind == "index":
        return body[step : step + 1]
    if kind == "all":
        return body
    names, value = step
    return [one for one in body if _field(one, names) == value]


def _field(body: Any, names: list[str]) -> Any:
    for name in names:
        body = body.get(name) if isinstance(body, dict) else None
    return body
