"""The two epochs of map podwire_state: what the programs remembered before is asked about anew.

One owner for both, for a bump of one is a read, a change and a write of the row that holds both.
"""

from __future__ import annotations

import logging
from collections.abc import Set

import msgspec

from podwire.abi import structs
from podwire.base.errors import PodwireError
from podwire.bpf.map import U32
from podwire.datapath.mirror import Target

log = logging.getLogger(__name__)

# What may allow or deny: when one of these changed, connections are asked anew.
DECIDING = {
    "podwire_policy",
    "podwire_policy_peers",
    "podwire_ipcache",
    "podwire_ipcache_prefixes",
    "podwire_endpoints",
    "podwire_devices",
}
# What a flow to a Service was translated by: when one of these changed, its backend may be another's.
SERVING = {"podwire_backends", "podwire_slots", "podwire_frontends"}
EPOCHS = {"policy_epoch": DECIDING, "service_epoch": SERVING}
ROW = U32.pack(0)


class Epochs:
    """Bumped after maps were written, never before: what was remembered in between would stay."""

    def __init__(self, state: Target) -> None:
        self._state = state
        self._due: set[str] = set()

    def close(self) -> None:
        self._state.close()

    @property
    def unfinished(self) -> bool:
        return bool(self._due)

    def changed(self, maps: Set[str]) -> None:
        """Bump those that `maps` matter to. One that is refused is bumped with the next."""
        self._due.update(name for name, watched in EPOCHS.items() if watched & maps)
        if not self._due:
            return
        try:
            raw = self._state.get(ROW)
            now = structs.NodeState.unpack(raw) if raw is not None else structs.NodeState()
            bumped = {name: (getattr(now, name) + 1) & 0xFFFFFFFF for name in self._due}
            self._state.put(ROW, msgspec.structs.replace(now, **bumped).pack())
        except PodwireError as error:
            log.warning("cannot have connections asked anew, trying again: %s", error)
        else:
            self._due.clear()
