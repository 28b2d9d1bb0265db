"""Endpoints across restarts: each is a small file, so that a new agent knows what is plumbed.

The files are the agent's memory of what only it knows (namespace path, interface, container id);
labels, identity and policy are worked out anew.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from podwire.base.errors import Conflict, StorageError
from podwire.base.files import replace_whole
from podwire.base.numbers import Circle
from podwire.state.table import ReadTable
from podwire.state.tables import EndpointRow

log = logging.getLogger(__name__)

ID_LAST = 65535


class Registry:
    """The directory of endpoint files of one node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(f"cannot make {directory}: {error.strerror}") from error

    def load(self) -> list[EndpointRow]:
        """All endpoints of earlier lives. A file that cannot be read is named and left alone; an empty one is
        of a machine that lost its power, and its devices."""
        rows = []
        for path in sorted(self.directory.glob("*.json")):
            try:
                if content := path.read_bytes():
                    rows.append(msgspec.json.decode(content, type=EndpointRow))
                else:
                    path.unlink()
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("endpoint file %s cannot be used: %s", path.name, error)
        return rows

    def save(self, row: EndpointRow) -> None:
        """Write whole or not at all."""
        try:
            replace_whole(self._path(row.id), msgspec.json.encode(row), durable=False)
        except OSError as error:
            raise StorageError(
                f"cannot remember endpoint {row.id}: {error.strerror}", hint="is the disk full?"
            ) from error

    def forget(self, endpoint: int) -> None:
        """Remove its file. One that stays is found out at the next start: its device is gone."""
        try:
            self._path(endpoint).unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove the file of endpoint %d: %s", endpoint, error.strerror)

    def _path(self, endpoint: int) -> Path:
        return self.directory / f"{endpoint}.json"


class Numbers:
    """Endpoint ids: 1..65535, the next after the last given, so that one is not soon used again."""

    def __init__(self, endpoints: ReadTable[EndpointRow]) -> None:
        self._endpoints = endpoints
        self._circle = Circle(1, ID_LAST)
        self._circle.begin_after(max((row.id for row in endpoints), default=0))

    def next(self) -> int:
        number = self._circle.next(lambda one: one in self._endpoints)
        if number is None:
            raise Conflict(f"all {ID_LAST} endpoint ids of this node are taken")
        return number
