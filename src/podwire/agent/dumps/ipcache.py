"""Who is behind an address or a prefix, as the kernel holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from podwire.abi import dtypes
from podwire.agent.dumps.names import Names
from podwire.agent.dumps.order import sorted_by, words
from podwire.agent.dumps.wanted import Mask, Wanted, among
from podwire.base.addresses import ZERO, unpack, unpack_prefix
from podwire.datapath.maps import Maps
from podwire.state.views import ReadTables

Rows = list[dict[str, Any]]
ROWS = 512
# Of each length of a prefix: the bits of an address's first and second half that it names.
MASKS = words(
    np.frombuffer(b"".join(((1 << 128) - (1 << 128 - bits)).to_bytes(16) for bits in range(129)), dtype="u1")
)


def ipcache(maps: Maps, tables: ReadTables, wanted: Wanted) -> Iterator[Rows]:
    """By address, a shorter prefix before those in it. In memory as numbers, which the maps bound."""
    addresses, bits, entries = _held(maps)
    chosen = _matching(addresses, bits, wanted, wanted.addresses)
    addresses, bits, entries = addresses[chosen], bits[chosen], entries[chosen]
    order, names = sorted_by(*words(addresses), bits), Names(tables)
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        yield [
            _row(tables, names, unpack_prefix(length, bytes(address)), identity, bytes(tunnel))
            for address, length, identity, tunnel in zip(
                addresses[part],
                bits[part].tolist(),
                entries["identity"][part].tolist(),
                entries["tunnel"][part],
                strict=True,
            )
        ]


def _held(maps: Maps) -> tuple[Any, Any, Any]:
    """(addresses, bits, entries) of the addresses alone and of the prefixes."""
    keys, values = maps["podwire_ipcache"].snapshot()
    alone = np.frombuffer(keys, dtype="u1").reshape(-1, 16)
    prefix_keys, prefix_values = maps["podwire_ipcache_prefixes"].snapshot()
    prefixes = np.frombuffer(prefix_keys, dtypes.PREFIX_KEY)
    return (
        np.concatenate([alone, prefixes["address"]]),
        np.concatenate([np.full(len(alone), 128, dtype="u4"), prefixes["prefix_length"]]),
        np.frombuffer(values + prefix_values, dtypes.IPCACHE_ENTRY),
    )


def _matching(addresses: Any, bits: Any, wanted: Wanted, pods: list[bytes] | None) -> Mask:
    """Of a wanted address: the prefixes that hold it; of a wanted block: also those in it."""
    found: Mask = np.ones(len(addresses), dtype=bool)
    if pods is not None:
        found &= among(addresses, pods) & (bits == 128)
    if wanted.prefix is not None:
        length, base = wanted.prefix
        shared = np.minimum(bits, length)  # two prefixes share addresses when so many of their bits are equal
        here, there = words(addresses), words(np.frombuffer(base, dtype="u1"))
        for mask, one, other in zip(MASKS, here, there, strict=True):
            found &= (one ^ other) & mask[shared] == 0
    return found


def _row(tables: ReadTables, names: Names, prefix: str, identity: int, tunnel: bytes) -> dict[str, Any]:
    known = tables.ipcache.get(prefix)
    return {
        "prefix": prefix,
        "identity": identity,
        "name": names.named(identity),
        "pod": f"{known.namespace}/{known.pod}" if known is not None and known.pod else "",
        "tunnel": "" if tunnel == ZERO else unpack(tunnel),
        "source": known.source if known is not None else "",
    }
