"""Which remembered names a change of a table makes wrong: by key, so that the others stay.

Each watched table names what its changed rows concern: an address, an endpoint, an identity, a rule.
Only parties are many; a change forgets those it may concern, with a few operations on the arrays of
the cache, and forgets all when so much changed that this is cheaper.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from podwire.base import addresses
from podwire.hubble.addressindex import key_of
from podwire.hubble.intern import NameCache
from podwire.hubble.prefixes import Prefixes
from podwire.state.table import Change
from podwire.state.tables import EndpointRow, IdentityRow, IpcacheRow, PodRow, RuleRow
from podwire.state.views import ReadTables

# Changed keys of one moment beyond which everything is forgotten instead.
MANY = 256
# Prefixes taken over at a time.
STEP = 4096


class Stale(msgspec.Struct):
    """What a moment's changes concern."""

    addresses: set[str] = msgspec.field(default_factory=set)
    endpoints: set[int] = msgspec.field(default_factory=set)
    identities: set[int] = msgspec.field(default_factory=set)
    rules: set[int] = msgspec.field(default_factory=set)
    by_prefix: bool = False  # identities that were found by a prefix
    devices: bool = False
    everything: bool = False

    def forget_parties(self, cache: NameCache) -> None:
        """`cache` is of (high, low, identity as the kernel knew it << 16 | endpoint) → (party, identity)."""
        if self.everything or len(self.addresses) > MANY:
            cache.clear()
            return
        for address in self.addresses:
            high, low, _ = key_of(address, 0, 0)
            cache.forget((cache.keys[0] == high) & (cache.keys[1] == low))
        for endpoint in self.endpoints:
            cache.forget(cache.keys[2] & 0xFFFF == endpoint)
        for identity in self.identities:
            cache.forget(cache.values[1] == identity)
        if self.by_prefix:
            cache.forget(cache.keys[2] >> 16 == 0)


class Changed:
    """Follows the tables that parties, decisions and devices are named from."""

    def __init__(self, tables: ReadTables, prefixes: Prefixes) -> None:
        self._tables = tables
        self._prefixes = prefixes
        self._endpoints, self._pods = tables.endpoints.changes(), tables.pods.changes()
        self._elsewhere = tables.remote_endpoints.changes()
        self._identities, self._ipcache = tables.identities.changes(), tables.ipcache.changes()
        self._rules, self._devices = tables.rules.changes(), tables.devices.changes()
        self._left: Iterator[Change[IpcacheRow]] | None = None
        self._readers: tuple[Any, ...] = (
            self._endpoints,
            self._pods,
            self._elsewhere,
            self._identities,
            self._ipcache,
            self._rules,
            self._devices,
        )

    @property
    def behind(self) -> bool:
        """Whether there are prefixes that are not taken over yet."""
        return self._left is not None

    def take(self) -> Stale | None:
        """What changed since the last time; None if nothing did. Some milliseconds at most."""
        pending = sum(reader.pending_rows for reader in self._readers)
        if not pending and self._left is None:
            return None
        stale = Stale(everything=pending > MANY)
        stale.devices = self._devices.pending_rows > 0 or self._endpoints.pending_rows > 0
        self._take_prefixes(stale)
        self._devices.drain()
        endpoints, pods = self._endpoints.drain(), self._pods.drain()
        elsewhere = self._elsewhere.drain()
        identities, rules = self._identities.drain(), self._rules.drain()
        if stale.everything:  # nobody looks at what it was
            return stale
        for endpoint in _rows(endpoints):
            self._endpoint(endpoint, stale)
        for pod in _rows(pods):
            self._pod(pod, stale)
        for row in _rows(elsewhere):
            stale.addresses.update(row.addresses)
        identity: IdentityRow
        for identity in _rows(identities):
            stale.identities.add(identity.number)
        rule: RuleRow
        for rule in _rows(rules):
            stale.rules.add(rule.number)
        return stale

    def _take_prefixes(self, stale: Stale) -> None:
        """In steps: at start there are as many rows as addresses in the cluster."""
        if self._left is None:
            self._left = self._ipcache.drain()
        done = 0
        for change in islice(self._left, STEP):
            self._prefix(change, stale)
            done += 1
        if done < STEP:
            self._left = None

    def _endpoint(self, row: EndpointRow, stale: Stale) -> None:
        stale.endpoints.add(row.id)
        stale.addresses.update(row.addresses)

    def _pod(self, row: PodRow, stale: Stale) -> None:
        stale.addresses.update(row.addresses)
        for endpoint in self._tables.endpoints.by("pod", (row.namespace, row.name)):
            self._endpoint(endpoint, stale)

    def _prefix(self, change: Change[IpcacheRow], stale: Stale) -> None:
        row = change.new or change.old
        assert row is not None
        if addresses.is_exact(row.prefix):
            stale.addresses.add(row.prefix.partition("/")[0])
            return
        stale.by_prefix = True
        if change.new is None:
            self._prefixes.remove(row.prefix)
        else:
            self._prefixes.put(row.prefix, row.identity)


def _rows(changes: Iterator[Change[Any]]) -> Iterator[Any]:
    for change in changes:
        if change.old is not None:
            yield change.old
        if change.new is not None:
            yield change.new
