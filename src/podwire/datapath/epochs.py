"""The epochs of map podwire_state: what the programs remembered before is asked about anew.

One owner for all, for a bump of some is a read, a change and a write of the row that holds them. Only
connections that a change may concern are asked about again: those with an address, with a peer of an
identity, under a policy (bpf/lib/connection.h). What concerns an endpoint alone stands in its own row.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Mapping
from struct import Struct

from podwire.abi import enums, structs
from podwire.base.errors import PodwireError
from podwire.bpf.map import U32
from podwire.datapath.mirror import Target

log = logging.getLogger(__name__)

ROW = U32.pack(0)
MANY = 512  # keys beyond which they are not looked at: everything is asked about again
WORDS = Struct("=4I")
PLACES = {name: offset // 4 for name, offset in structs.NodeState.OFFSETS.items()}
# SERVICE: what a flow to a Service was translated by; when it changed, its backend may be another's.
POLICY, SERVICE = PLACES["policy_epoch"], PLACES["service_epoch"]
# The word to bump when a key of some map changed; None = nothing is remembered of it.
Asks = int | Callable[[bytes], int] | None


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
    """Bumped after maps were written, never before: what was remembered in between would stay.

    `asks`: map → the word that what is remembered of a key of it hangs on.
    """

    def __init__(self, state: Target, asks: Mapping[str, Asks]) -> None:
        self._state = state
        self._asks = asks
        self._due: set[int] = set()  # words of the row

    def close(self) -> None:
        self._state.close()

    @property
    def unfinished(self) -> bool:
        return bool(self._due)

    def changed(self, changes: Changes) -> None:
        """Bump those that the changes matter to. One that is refused is bumped with the next."""
        for name, keys in changes.keys.items():
            self._due.update(places(self._asks[name], keys))
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


def places(asks: Asks, keys: set[bytes]) -> set[int]:
    """Words of the row to bump when these keys of a map changed."""
    if not keys or asks is None:
        return set()
    if isinstance(asks, int):
        return {asks}
    return {POLICY} if len(keys) > MANY else {asks(key) for key in keys}


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
