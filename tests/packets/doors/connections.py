"""A map of very many connections."""

from __future__ import annotations

from typing import Any

import numpy as np

from podwire.abi import structs
from podwire.abi.dtypes import CT_ENTRY, CT_KEY
from podwire.base.addresses import pack
from podwire.bpf import library
from podwire.bpf.map import NO_PREALLOC, Map, MapType
from podwire.datapath import conntrack


def filled(count: int) -> Map[Any, Any]:
    """A map of connections from 192.0.2.1, each to another address and port; every 1000th to port 443."""
    table: Map[Any, Any] = Map.create(
        MapType.HASH, "test_ct", structs.CtKey, structs.CtEntry, count, NO_PREALLOC
    )
    keys, values = np.zeros(count, dtype=CT_KEY), np.zeros(count, dtype=CT_ENTRY)
    number = np.arange(count, dtype="u4")
    keys["local"] = np.frombuffer(pack("192.0.2.1"), dtype="u1")
    keys["remote"] = np.frombuffer(pack("10.0.0.0"), dtype="u1")
    for place in range(3):
        keys["remote"][:, 15 - place] = (number >> (8 * place)) & 0xFF
    keys["local_port"] = 1024 + number % 60000
    keys["remote_port"] = np.where(number % 1000 == 0, 443, 80)
    keys["protocol"] = 6
    values["expires"] = conntrack.now() + 3600
    error, done = library.map_update_batch(table.fileno(), keys.tobytes(), values.tobytes(), count)
    assert (error, done) == (0, count)
    return table
