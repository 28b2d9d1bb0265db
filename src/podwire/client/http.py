"""Just enough HTTP for a local socket, without I/O: requests as bytes, answers from bytes.

Requests are HTTP/1.0, so an answer ends where the connection does, and streams need no framing.
`http.client` would do as well, but takes longer to import than a whole `podwire status` may.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from podwire.base.errors import (
    Conflict,
    InvalidObject,
    NotFound,
    NotPermitted,
    PodwireError,
    Unreachable,
    UsageError,
)

HINT = "podwire-hint"  # header with what to do next, percent-encoded
HEAD_LIMIT = 65536


class Head(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case


def part(text: str) -> str:
    """`text` as one part of a path, whatever it holds. Nothing would be another path: UsageError."""
    if not text:
        raise UsageError(
            "an empty name names nothing", hint="leave it out, or give the name that a list shows"
        )
    return quote(text, safe=":@")


def request(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: Any) -> bytes:
    """`path` quoted (see `part`); a `body` other than None is sent as JSON."""
    target = path
    if query:
        target += "?" + "&".join(f"{quote(key)}={quote(value, safe='')}" for key, value in query.items())
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/1.0", "Host: localhost", "Accept: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def head(raw: bytes) -> Head:
    """What stands before the empty line. Unreachable if it is no HTTP."""
    try:
        first, *rest = raw.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        if not version.startswith("HTTP/1."):
            raise ValueError(version)
        named = (line.partition(":") for line in rest if line)
        return Head(int(status), {name.strip().lower(): value.strip() for name, _, value in named})
    except ValueError as error:
        raise Unreachable("what listens on the agent's socket does not speak HTTP") from error


def content(answer: Head, body: bytes) -> Any:
    """The value of a good answer: JSON, or text where it is text; else the error it stands for."""
    length = answer.headers.get("content-length")
    if length is not None and length.isdigit() and len(body) != int(length):
        raise _ended()
    if answer.status >= 400:
        raise failure(answer, body)
    if not body:
        return None
    if "json" in answer.headers.get("content-type", ""):
        try:
            return json.loads(body)
        except ValueError as error:
            # Of a list nobody announces the length: one that ended in the middle is no JSON either.
            hint = "the agent may have ended in the middle of it: ask again" if length is None else None
            raise Unreachable("the agent's answer is no JSON", hint=hint) from error
    return body.decode(errors="replace")


def items(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Those of a JSON list that has each on a line of its own. Unreachable if the list is not closed."""
    for line in lines:
        match line:
            case b"[\n":
                pass
            case b"]\n":
                return
            case _ if line.endswith(b"\n"):
                yield line.removesuffix(b"\n").removesuffix(b",")
    raise _ended()


def _ended() -> Unreachable:
    return Unreachable("the agent ended in the middle of its answer", hint="ask again; its log may say why")


def failure(answer: Head, body: bytes) -> PodwireError:
    """The error an answer stands for; its body is a sentence, as JSON string or as text."""
    text = body.decode(errors="replace").strip()
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None if answer.status >= 500 else text  # what a framework says when a handler broke
    text = parsed if isinstance(parsed, str) else text if parsed is not None else ""
    text = text or f"the agent could not answer ({answer.status}); its log says why"
    hint = unquote(answer.headers[HINT]) if HINT in answer.headers else None
    match answer.status:
        case 400 | 422:
            return InvalidObject("", text, hint=hint)
        case 403:
            return NotPermitted(text, hint=hint)
        case 404:
            return NotFound(text, hint=hint)
        case 409:
            return Conflict(text, hint=hint)
        case 502 | 503 | 504:
            return Unreachable(text, hint=hint)
        case _:
            return PodwireError(text, hint=hint)
