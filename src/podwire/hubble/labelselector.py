"""Label selectors as Kubernetes writes them (``app=web, tier in (a, b), !canary``), with Cilium's
sources (``k8s:app``, ``reserved:world``); a key without source means any source."""

from __future__ import annotations

import re
from collections import deque

from podwire.base.errors import InvalidObject
from podwire.model.selector import Operator, Requirement, Selector

_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|[^\s=!,()]+)")
_END = ""


def parse(text: str) -> Selector:
    """InvalidObject with what is wrong."""
    return Selector(tuple(sorted(_Parser(text).requirements())))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: deque[str] = deque()
        at = 0
        stripped = text.rstrip()
        while at < len(stripped):
            found = _TOKEN.match(stripped, at)
            if found is None:
                raise self._wrong(f"cannot read {stripped[at:]!r}")
            self._tokens.append(found[1])
            at = found.end()

    def requirements(self) -> list[Requirement]:
        if not self._tokens:
            return []
        found = [self._requirement()]
        while self._tokens:
            self._expect(",")
            found.append(self._requirement())
        return found

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            source, key = self._key()
            return Requirement(source, key, Operator.NOT_EXISTS)
        source, key = self._key()
        match self._peek():
            case "=" | "==":
                self._next()
                return Requirement(source, key, Operator.IN, (self._value(),))
            case "!=":
                self._next()
                return Requirement(source, key, Operator.NOT_IN, (self._value(),))
            case "in" | "notin" as word:
                self._next()
                operator = Operator.IN if word == "in" else Operator.NOT_IN
                return Requirement(source, key, operator, self._values())
            case "," | "":
                return Requirement(source, key, Operator.EXISTS)
            case other:
                raise self._wrong(f"unexpected {other!r} after key {key!r}")

    def _key(self) -> tuple[str, str]:
        token = self._next()
        if token in ("", ",", "=", "==", "!=", "(", ")", "!"):
            raise self._wrong(
                f"a key is missing before {token!r}" if token else "a key is missing at the end"
            )
        if "<" in token or ">" in token:
            raise self._wrong(f"comparison of numbers ({token!r}) is not supported")
        source, colon, key = token.partition(":")
        return (source, key) if colon else ("any", token)

    def _value(self) -> str:
        return self._next() if self._peek() not in (",", _END) else ""

    def _values(self) -> tuple[str, ...]:
        self._expect("(")
        found = set()
        while self._peek() != ")":
            if self._peek() == _END:
                raise self._wrong("a closing parenthesis is missing")
            found.add("" if self._peek() == "," else self._next())
            if self._peek() == ",":
                self._next()
        self._expect(")")
        return tuple(sorted(found))

    def _peek(self) -> str:
        return self._tokens[0] if self._tokens else _END

    def _next(self) -> str:
        return self._tokens.popleft() if self._tokens else _END

    def _expect(self, token: str) -> None:
        found = self._next()
        if found != token:
            raise self._wrong(
                f"expected {token!r}, found {found!r}" if found else f"expected {token!r} at the end"
            )

    def _wrong(self, problem: str) -> InvalidObject:
        return InvalidObject("", f"label selector {self._text!r}: {problem}")
