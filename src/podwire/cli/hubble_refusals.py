"""What a Hubble server refuses, told with the option that was written, not with the request's field."""

from __future__ import annotations

import re
from typing import Any

from podwire.base.errors import InvalidObject, PodwireError, UsageError
from podwire.cli.hubble_filters import FilterFlags, flags_of

_FILTER = re.compile(
    r"(?P<list>whitelist|blacklist)(\[(?P<place>\d+)\])?(\.(?P<field>\w+))?:? (?P<problem>.*)", re.S
)
_PLAIN = re.compile(r"(?P<field>field_mask|first|since|until|number): (?P<problem>.*)", re.S)
_OPTIONS = {"field_mask": "--field-mask", "number": "--last"}


def told(error: InvalidObject, filters: list[tuple[str, str]], options: dict[str, Any]) -> PodwireError:
    """`filters` are the flags in the order of the command line. What names no field stays as it is."""
    said = str(error).removeprefix(": ")
    if plain := _PLAIN.fullmatch(said):
        option = _OPTIONS.get(plain["field"], f"--{plain['field']}")
        return UsageError(f"{option}: {plain['problem']}", hint=error.hint)
    found = _FILTER.fullmatch(said)
    if found is None:
        return error
    denied = found["list"] == "blacklist"
    raw = "--denylist" if denied else "--allowlist"
    flags = _given(filters, denied=denied)
    if found["field"] is None:
        return UsageError(f"{raw} and the filters of flags: {found['problem']}", hint=error.hint)
    place = int(found["place"] or 0)
    if place >= _filters_of_flags(filters, denied=denied):
        return UsageError(f"{raw}: {found['field']}: {found['problem']}", hint=error.hint)
    able = flags_of(found["field"])
    fitting = [(flag, value) for flag, value in flags if flag in able]
    # Of several the one whose value the server names.
    named = [flag for flag, value in fitting if repr(value)[1:-1] in found["problem"]]
    chosen = named or [flag for flag, _ in fitting]
    option = f"--{chosen[0]}" if chosen else found["field"]
    return UsageError(f"{'--not ' * denied}{option}: {found['problem']}", hint=error.hint)


def _given(filters: list[tuple[str, str]], *, denied: bool) -> list[tuple[str, str]]:
    """The flags of one of the two lists: of the second those behind a --not."""
    found, reversed_ = [], False
    for flag, value in filters:
        if flag != "not" and reversed_ is denied:
            found.append((flag, value))
        reversed_ = flag == "not"
    return found


def _filters_of_flags(filters: list[tuple[str, str]], *, denied: bool) -> int:
    flags = FilterFlags()
    for flag, value in filters:
        flags.add(flag, value)
    return len(flags.blacklist() if denied else flags.whitelist())
