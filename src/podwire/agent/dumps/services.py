"""Service addresses and what is behind them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from podwire.abi import dtypes
from podwire.abi.enums import BackendFlags
from podwire.abi.structs import Backend, Frontend, SlotKey
from podwire.agent.dumps.names import address_of
from podwire.agent.dumps.order import sorted_by, words
from podwire.agent.dumps.wanted import Wanted, within
from podwire.base.addresses import join, unpack
from podwire.datapath.maps import Maps
from podwire.datapath.rows import slot_of
from podwire.state.views import ReadTables

Rows = list[dict[str, Any]]
ROWS = 256


def frontends(maps: Maps, tables: ReadTables, wanted: Wanted) -> Iterator[Rows]:
    """One row a backend; one without a backend for a frontend that has none. By number, then address.

    In memory are the frontends as the kernel has them, which its map bounds; backends are asked for as
    they are shown.
    """
    keys, values = maps["podwire_frontends"].snapshot()
    key, value = np.frombuffer(keys, dtypes.FRONTEND_KEY), np.frombuffer(values, dtypes.FRONTEND)
    if wanted.protocol is not None:
        chosen = key["protocol"] == wanted.protocol
        key, value = key[chosen], value[chosen]
    order = sorted_by(value["rev_nat"], *words(key["address"]), key["port"], key["protocol"])
    test = _Test(wanted)
    found: Rows = []
    for index in order.tolist():
        found += _of_one(maps, tables, key[index], value[index], test)
        if len(found) >= ROWS:
            yield found
            found = []
    yield found


class _Test:
    """Whether a frontend with one of its backends is wanted: an address or a port of either."""

    def __init__(self, wanted: Wanted) -> None:
        self._pods = wanted.addresses
        self._wanted = wanted

    def of(self, address: bytes, port: int, backend: Backend | None) -> bool:
        wanted = self._wanted
        ends = [(address, port)] + ([(backend.address, backend.port)] if backend is not None else [])
        if self._pods is not None and (backend is None or backend.address not in self._pods):
            return False
        if wanted.port is not None and all(one != wanted.port for _, one in ends):
            return False
        if wanted.prefix is None:
            return True
        held = np.frombuffer(b"".join(one for one, _ in ends), dtype="u1").reshape(-1, 16)
        return bool(within(held, wanted.prefix).any())


def _of_one(maps: Maps, tables: ReadTables, key: Any, value: Any, test: _Test) -> Rows:
    address, port, protocol = bytes(key["address"]), int(key["port"]), int(key["protocol"])
    frontend = Frontend.unpack(value.tobytes())
    behind: list[tuple[int, int, Backend | None]] = []
    for place in range(frontend.count):
        if frontend.set:
            slot = maps["podwire_slots"].get(SlotKey(frontend.set, place))
        else:
            slot = slot_of(frontend, place)
        chosen = slot.backend if slot is not None else 0
        behind.append((place, chosen, maps["podwire_backends"].get(chosen)))
    behind = [one for one in behind or [(-1, 0, None)] if test.of(address, port, one[2])]
    if not behind:
        return []
    known = tables.frontends.get((unpack(address), port, protocol))
    common = {
        "frontend": address_of(address, port, protocol),
        "service": f"{known.namespace}/{known.service}" if known else "",
        "rev_nat": frontend.rev_nat,
        "set": frontend.set,
    }
    return [{**common, "slot": slot, **_backend(slot, chosen, one)} for slot, chosen, one in behind]


def _backend(slot: int, chosen: int, backend: Backend | None) -> dict[str, Any]:
    if slot < 0:
        return {"backend": "", "id": 0, "state": "none"}
    if backend is None:
        return {"id": chosen, "backend": "", "state": "missing"}
    state = "terminating" if backend.flags & BackendFlags.TERMINATING else "active"
    return {"id": chosen, "backend": join(unpack(backend.address), backend.port), "state": state}
