"""What options and arguments may be, for all commands: a refused value is told with what is allowed.

Click says which option it is; these say what was given, and what would do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import click

from podwire.model import protocol as protocols

SHOWN = 60  # characters of a refused value


def told(value: str) -> str:
    """A refused value as it is shown: quoted, and not longer than a line takes."""
    return repr(value[:SHOWN] + "…") if len(value) > SHOWN else repr(value)


class Checked(click.ParamType[str]):
    """Text for which `good` holds; else the sentence ``VALUE is no NAME: ALLOWED``."""

    def __init__(self, name: str, allowed: str, good: Callable[[str], bool]) -> None:
        self.name = name
        self._allowed = allowed
        self._good = good

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not self._good(text):
            self.fail(f"{told(text)} is no {self.name}: {self._allowed}", param, ctx)
        return text


def _number(most: int) -> Callable[[str], bool]:
    return lambda text: text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= most


def _is_prefix(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "%" not in text


def _is_pod(text: str) -> bool:
    namespace, slash, name = text.rpartition("/")
    return bool(name) and "/" not in namespace and bool(namespace or not slash) and text.isprintable()


ENDPOINT = Checked(
    "endpoint", "a number from 0 to 65535 (`podwire endpoint list` shows them)", _number(65535)
)
SCOPE = Checked(
    "endpoint", "its number, or “global” for all", lambda text: text == "global" or _number(65535)(text)
)
POD = Checked("pod", "[NAMESPACE/]NAME", _is_pod)
PREFIX = Checked("address", "10.0.0.1, fd00::1, or a block like 10.0.0.0/8", _is_prefix)
PROTOCOL = Checked(
    "protocol",
    f"{', '.join(protocols.NAMES.values())}, or a number up to 255",
    lambda text: protocols.number(text) is not None,
)
