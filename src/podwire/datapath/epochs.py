"""The epochs of map podwire_state: what the programs remembered before is asked about anew.

One owner for all, for a bump of some is a read, a change and a write of the row that holds them. Only
connections that a change may concern are asked about again: those with an address, with a peer of an
identity, under a policy (bpf/lib/connection.h). What concerns an endpoint alone stands in its own row.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable
from struct import Struct

from podwire.abi import enums, structs
from podwire.base.errors import PodwireError
from podwire.bpf.map import U32
from podwire.datapath.mirror import Target

log = logging.getLogger(__name__)

# What a flow to a Service was translated by: when one of these changed, its backend may be another's.
SERVING = {"podwire_backends", "podwire_slots", "podwire_frontends"}
ROW = U32.pack(0)
MANY = 512  # keys beyond which they are not looked at: everything is asked about again
WORDS = Struct("=4I")
PLACES = {name: offset // 4 for name, offset in structs.NodeState.OFFSETS.items()}
POLICY, SERVICE = PLACES["policy_epoch"], PLACES["service_epoch"]


class Changes:
    """Map → keys that were written or removed."""

    def __init__(self) -> None:
        self.keys: dict[str, set[bytes]] = {}

    def add(self, name: str, keys: Iterable[bytes]) -> set[bytes]:
        """Those that were not among them before."""
        known = self.keys.setdefault(name, set())
        fresh = set(keys) - known
        known |= fresh
        return fresh

    def take_back(self, name: str, keys: set[bytes]) -> None:
        self.keys[name] -= keys


class Epochs:
    """Bumped after maps were written, never before: what was remembered in between would stay."""

    def __init__(self, state: Target) -> None:
        self._state = state
        self._due: set[int] = set()  # words of the row

    def close(self) -> None:
        self._state.close()

    @property
    def unfinished(self) -> bool:
        return bool(self._due)

    def changed(self, changes: Changes) -> None:
        """Bump those that the changes matter to. One that is refused is bumped with the next."""
        self._due.update(place for name, keys in changes.keys.items() if keys for place in places(name, keys))
        self._bump()

    def all_changed(self) -> None:
        """Bump what every connection and every flow to a Service depends on."""
        self._due.update((POLICY, SERVICE))
        self._bump()

    def _bump(self) -> None:
        if not self._due:
            return
        try:
            words = array("I", self._state.get(ROW) or bytes(structs.NodeState.SIZE))
            for place in self._due:
                words[place] = (words[place] + 1) & 0xFFFFFFFF
            self._state.put(ROW, words.tobytes())
        except PodwireError as error:
            log.warning("cannot have connections asked anew, trying again: %s", error)
        else:
            self._due.clear()


def places(name: str, keys: set[bytes]) -> set[int]:
    """Words of the row to bump when these keys of a map changed."""
    if name in SERVING:
        return {SERVICE}
    if name == "podwire_ipcache_prefixes":
        return {POLICY}  # any address may be below one
    place = DECIDING.get(name)
    if place is None:
        return set()
    return {POLICY} if len(keys) > MANY else {place(key) for key in keys}


def of_address(address: bytes) -> int:
    """The word for connections to or from an address of 16 bytes; as bpf/lib/conntrack.h has it."""
    first, second, third, fourth = WORDS.unpack(address)
    return PLACES["addresses"] + _place(first ^ second ^ third ^ fourth, enums.EPOCH_ADDRESS_BITS)


def of_block(block: int) -> int:
    """The word for connections with peers of 16 identities."""
    return PLACES["identities"] + _place(block, enums.EPOCH_IDENTITY_BITS)


def of_policy(policy: int) -> int:
    return PLACES["policies"] + _place(policy, enums.EPOCH_POLICY_BITS)


def _place(value: int, bits: int) -> int:
    return (value * enums.EPOCH_MULTIPLIER & 0xFFFFFFFF) >> (32 - bits)


# What may allow or deny. Of podwire_devices the endpoint's own epoch tells, which stands in its row.
DECIDING: dict[str, Callable[[bytes], int]] = {
    "podwire_policy": lambda key: of_policy(structs.PolicyKey.unpack(key).policy),
    "podwire_policy_peers": lambda key: of_block(structs.PolicyPeersKey.unpack(key).block),
    "podwire_ipcache": of_address,
    "podwire_endpoints": of_address,
}
