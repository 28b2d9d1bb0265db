"""What somebody wants to see of a map: filters, read from a query and asked of whole columns.

What is not wanted is left out while it is numbers in an array; only what is left becomes text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from podwire.agent.interface import FILTERS
from podwire.base import addresses
from podwire.base.errors import InvalidObject, NotFound
from podwire.model import protocol as protocols
from podwire.model.cluster import OWN
from podwire.state.views import ReadTables

Mask = NDArray[np.bool_]


class Wanted(msgspec.Struct, frozen=True):
    """None = whatever it is."""

    pod: tuple[str, str] | None = None  # namespace, name
    prefix: tuple[int, bytes] | None = None  # bits and 16 bytes, of the address or the block
    port: int | None = None
    protocol: int | None = None
    endpoint: int | None = None
    addresses: list[bytes] | None = None  # of the pod, see `known`
    endpoints: set[int] | None = None  # numbers of those of this node

    def known(self, name: str, tables: ReadTables) -> Wanted:
        """With what tables say of the pod or endpoint that is wanted of dump `name`, which runs in a thread:
        what is looked up by an index is looked up before. NotFound if nobody knows it."""
        if "endpoint" in FILTERS[name]:
            return msgspec.structs.replace(self, endpoints=self._endpoints(tables))
        return msgspec.structs.replace(self, addresses=self._addresses(tables))

    def _addresses(self, tables: ReadTables) -> list[bytes] | None:
        """The wanted pod's, on this node or another; None = no pod is wanted."""
        if self.pod is None:
            return None
        rows: list[Any] = list(tables.endpoints.by("pod", self.pod))
        if (remote := tables.remote_endpoints.get((OWN, *self.pod))) is not None:
            rows.append(remote)
        if not rows:
            raise NotFound(f"this node knows no pod {'/'.join(self.pod)}")
        return [addresses.pack(one) for row in rows for one in row.addresses]

    def _endpoints(self, tables: ReadTables) -> set[int] | None:
        """Numbers of the endpoints of this node that are wanted; None = all."""
        if self.endpoint is None and self.pod is None:
            return None
        found = tables.endpoints.by("pod", self.pod) if self.pod else list(tables.endpoints)
        numbers = {row.id for row in found if self.endpoint in (None, row.id)}
        if not numbers:
            told = (
                f"endpoint {self.endpoint}"
                if self.endpoint is not None
                else f"pod {'/'.join(self.pod or ())}"
            )
            raise NotFound(f"there is no {told} on this node", hint="`podwire endpoint list` shows all")
        return numbers


def read(name: str, query: Mapping[str, str]) -> Wanted:
    """The filters of a query for the dump `name`; InvalidObject names the one that is wrong or not taken."""
    given = {key: value for key, value in query.items() if value}
    for key in given:
        if key not in FILTERS[name]:
            raise InvalidObject(
                key[:40], f"is no filter of {name}", hint=f"there are {', '.join(FILTERS[name])}"
            )
    return Wanted(
        pod=_pod(given.get("pod")),
        prefix=_prefix(given.get("address")),
        port=_number("port", given.get("port")),
        protocol=_protocol(given.get("protocol")),
        endpoint=_number("endpoint", given.get("endpoint")),
    )


def _pod(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    namespace, slash, pod = text.rpartition("/")
    if not pod or "/" in namespace or (slash and not namespace):
        raise InvalidObject("pod", f"{text[:60]!r} is no name of a pod", hint="as namespace/name")
    return namespace or "default", pod


def _prefix(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    try:
        return addresses.pack_prefix(text)
    except ValueError as error:
        raise InvalidObject("address", f"{text[:60]!r} is neither an address nor a block of them") from error


def _number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise InvalidObject(name, f"must be a number from 0 to 65535, not {text[:40]!r}")
    return int(text)


def _protocol(text: str | None) -> int | None:
    if text is None:
        return None
    number = protocols.number(text)
    if number is None:
        raise InvalidObject(
            "protocol",
            f"{text[:40]!r} is no protocol",
            hint=f"one of {', '.join(protocols.NAMES.values())}, or a number up to 255",
        )
    return number


def within(column: Any, prefix: tuple[int, bytes]) -> Mask:
    """Of rows of 16 bytes: which lie in the prefix."""
    bits, base = prefix
    whole, rest = divmod(bits, 8)
    wanted = np.frombuffer(base, dtype="u1")
    inside: Mask = (column[:, :whole] == wanted[:whole]).all(axis=1)
    if rest:
        mask = 0xFF << (8 - rest) & 0xFF
        inside &= (column[:, whole] & mask) == (wanted[whole] & mask)
    return inside


def among(column: Any, wanted: list[bytes]) -> Mask:
    """Of rows of 16 bytes: which are one of these addresses."""
    found: Mask = np.zeros(len(column), dtype=bool)
    for one in wanted:
        found |= (column == np.frombuffer(one, dtype="u1")).all(axis=1)
    return found
