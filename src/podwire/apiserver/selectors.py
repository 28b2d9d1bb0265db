"""Label and field selectors: text in a query → a predicate over objects. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from podwire.apiserver.status import bad_request

Object = dict[str, Any]
Predicate = Callable[[Object], bool]

_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^()]*)\)$")
_PARTS = re.compile(r"[(),]")


def labels(text: str) -> Predicate:
    """``app=web,tier in (a,b),!old``; 400 where it is no selector."""
    tests = [_label_term(term.strip()) for term in _terms(text) if term.strip()]

    def matches(thing: Object) -> bool:
        have = thing["metadata"].get("labels") or {}
        return all(test(have) for test in tests)

    return matches


def _terms(text: str) -> Iterator[str]:
    """Between the commas that are in no parentheses."""
    begin = depth = 0
    for found in _PARTS.finditer(text):
        if found.group() == "," and not depth:
            yield text[begin : found.start()]
            begin = found.end()
        elif found.group() != ",":
            depth = found.group() == "("
    yield text[begin:]


def match(selector: Object | None, have: Mapping[str, str]) -> bool:
    """metav1.LabelSelector against labels; None matches nothing, an empty one everything."""
    if selector is None:
        return False
    if any(have.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(one, have) for one in selector.get("matchExpressions") or [])


def _expression(term: Object, have: Mapping[str, str]) -> bool:
    value = have.get(term["key"])
    match term["operator"]:
        case "In":
            return value in (term.get("values") or [])
        case "NotIn":
            return value not in (term.get("values") or [])
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and value.lstrip("-").isdigit() and int(value) > int(term["values"][0])
        case "Lt":
            return value is not None and value.lstrip("-").isdigit() and int(value) < int(term["values"][0])
    return False


def _label_term(term: str) -> Callable[[Mapping[str, str]], bool]:
    found = _SET.fullmatch(term)
    if found:
        key, operator, inside = _key(found[1]), found[2], {_value(one.strip()) for one in found[3].split(",")}
        if operator == "in":
            return lambda have: have.get(key) in inside
        return lambda have: have.get(key) not in inside
    for sign in ("!=", "==", "="):
        if sign in term:
            left, right = term.split(sign, 1)
            key, value = _key(left.strip()), _value(right.strip())
            if sign == "!=":
                return lambda have: have.get(key) != value
            return lambda have: have.get(key) == value
    if term.startswith("!"):
        key = _key(term[1:].strip())
        return lambda have: key not in have
    key = _key(term)
    return lambda have: key in have


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise bad_request(f'unable to parse requirement: invalid label key "{text[:100]}"')
    return text


def _value(text: str) -> str:
    if len(text) > 63 or not _VALUE.fullmatch(text):
        raise bad_request(f'unable to parse requirement: invalid label value "{text[:100]}"')
    return text


def fields(text: str, supported: Mapping[str, str]) -> Predicate:
    """``status.phase!=Running,spec.nodeName=n1``. `supported` maps a name to its default value."""
    tests = []
    for term in text.split(","):
        if not term.strip():
            continue
        sign = next((one for one in ("!=", "==", "=") if one in term), None)
        if sign is None:
            raise bad_request(f'invalid field selector: "{term[:100]}"; can\'t understand it')
        name, value = (part.strip() for part in term.split(sign, 1))
        if name not in supported:
            raise bad_request(f"field label not supported: {name[:100]}")
        tests.append((name.split("."), value.replace("\\", ""), sign != "!=", supported[name]))

    def matches(thing: Object) -> bool:
        return all(
            (_field(thing, path, default) == value) is wanted for path, value, wanted, default in tests
        )

    return matches


def _field(thing: Any, path: list[str], default: str) -> str:
    for step in path:
        if not isinstance(thing, dict) or step not in thing:
            return default
        thing = thing[step]
    if thing is None:
        return default
    return {True: "true", False: "false"}[thing] if isinstance(thing, bool) else str(thing)
