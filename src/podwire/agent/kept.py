"""Policies that were changed into what is refused: what they said last, kept over a restart.

Their last good rules stay in force (`podwire.sources.policies`). A new agent would know only the
refused object and have no rules for it, so that what was denied would pass; these files are its memory.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from hashlib import blake2b
from pathlib import Path

import msgspec

from podwire.base.files import replace_whole
from podwire.state.table import Change, Watch
from podwire.state.tables import PolicyRow
from podwire.state.views import ReadTables

log = logging.getLogger(__name__)


class KeptPolicies:
    """One file for each refused policy that had rules before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> dict[Hashable, PolicyRow]:
        """Key of table policies → what was in force."""
        found: dict[Hashable, PolicyRow] = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                row = msgspec.json.decode(path.read_bytes(), type=PolicyRow)
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("kept policy %s cannot be used: %s", path.name, error)
                continue
            found[(row.kind, row.namespace, row.name)] = row
        return found

    async def run(self, tables: ReadTables) -> None:
        """Keep the files equal to the table, until cancelled."""
        with Watch(tables.policies) as watch:
            while True:
                (changes,) = await watch.next()
                for change in changes:
                    self.note(change)

    def note(self, change: Change[PolicyRow]) -> None:
        """A file where a refused policy has rules, none otherwise."""
        path = self._path(change.key)
        try:
            if change.new is not None and change.new.error and change.new.rules:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                replace_whole(path, msgspec.json.encode(change.new))
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot keep what policy %s said last: %s", change.key, error.strerror)

    def _path(self, key: Hashable) -> Path:
        return self._directory / f"{blake2b(repr(key).encode(), digest_size=12).hexdigest()}.json"
