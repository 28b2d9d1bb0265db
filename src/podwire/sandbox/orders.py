"""What commands ask of a sandbox's keeper, by its socket (`keeper` says what it answers)."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from podwire.base.errors import Unreachable
from podwire.sandbox import children
from podwire.sandbox.children import KEEPER
from podwire.sandbox.places import Places

PATIENCE = 5.0  # s a command waits for an answer


class Silent(Unreachable):
    """The keeper has a request and does not answer yet: it is stopped, or the machine is slow."""


def ask(places: Places, request: dict[str, Any]) -> dict[str, Any] | None:
    """The keeper's answer; None where there is no keeper (any more), or one that does not answer."""
    try:
        return order(places, request)
    except Silent:
        return None


def order(places: Places, request: dict[str, Any]) -> dict[str, Any] | None:
    """The keeper's answer; None where there is no keeper (any more). Silent where it may still do it.

    One that is just coming up is waited for.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _asked(places, request)
        except (ConnectionRefusedError, FileNotFoundError):
            if children.claimed(places, KEEPER) is None or time.monotonic() > deadline:
                return None
            time.sleep(0.01)
        except OSError:
            return None


def _asked(places: Places, request: dict[str, Any]) -> dict[str, Any] | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(places.keeper_socket))
        connection.sendall(json.dumps(request).encode() + b"\n")
        try:
            answer = connection.makefile("rb").readline()
        except TimeoutError as error:
            raise Silent(f"the keeper of sandbox “{places.name}” does not answer") from error
    return json.loads(answer) if answer else None
