"""What is asked of a write besides the object, and what came of it."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.apiserver.store import Stored

Object = dict[str, Any]


class Options(msgspec.Struct, frozen=True):
    """How a write is to be done. `manager` empty: the server's own, which owns no fields."""

    manager: str = ""
    dry_run: bool = False
    validation: str = "Warn"  # Ignore | Warn | Strict
    force: bool = False
    applied: list[Object] | None = None  # the managed fields of a server-side apply


class DeleteOptions(msgspec.Struct, frozen=True):
    """metav1.DeleteOptions as far as they have an effect."""

    grace: int | None = None
    propagation: str = ""
    uid: str = ""
    revision: str = ""
    dry_run: bool = False


class Written(msgspec.Struct):
    """The outcome of a write: the object, whether it is new, and warnings for the client."""

    stored: Stored
    created: bool = False
    warnings: list[str] = []
    removed: bool = False


OWN = Options()
