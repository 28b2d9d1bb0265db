"""Which service is this address and port? What frontends and backends say, followed change by change.

Ports of clients are new for every connection, so a cache by address and port would miss all the
time; a binary search over the pairs that services have (`hubble.addressindex`) does not.

The tables are followed in steps: at start there may be hundreds of thousands of rows, and whoever
waits for the event loop must not wait for all of them. Between two steps a name may be missing,
never wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.hubble.addressindex import NOTHING, AddressIndex, Key, key_of, mix
from podwire.model.flow import ServiceName
from podwire.state.table import Change
from podwire.state.tables import BackendRow, FrontendRow
from podwire.state.views import ReadTables

Array = NDArray[Any]
# Rows, and backends of frontends, taken over in one step: some milliseconds.
STEP = 512


class ServiceIndex:
    """(address, port, protocol) → number of a `ServiceName`; 0 where there is none.

    A backend is named after the service it serves, if it serves only one. An address and port that
    are both are named as the frontend.
    """

    def __init__(self, tables: ReadTables) -> None:
        self._changed = asyncio.Event()
        self._frontend_changes, self._backend_changes = tables.frontends.changes(), tables.backends.changes()
        for changes in (self._frontend_changes, self._backend_changes):
            changes.share(self._changed)
        self._steps: Iterator[None] | None = None
        self._frontends, self._backends = AddressIndex(), AddressIndex()
        self._names = _Names()
        self._rows: dict[int, BackendRow] = {}
        self._uses = _Uses()

    async def run(self) -> None:
        """Follow the tables, until cancelled."""
        while True:
            await self._changed.wait()
            while self.step():
                await asyncio.sleep(0)

    @property
    def behind(self) -> bool:
        """Whether the tables say what is not taken over yet."""
        return (
            self._steps is not None
            or self._frontend_changes.pending_rows > 0
            or self._backend_changes.pending_rows > 0
        )

    def step(self) -> bool:
        """Take over about `STEP` changes; whether there are more."""
        if self._steps is None:
            self._changed.clear()
            if not self.behind:
                return False
            self._steps = self._take_over(self._backend_changes.drain(), self._frontend_changes.drain())
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
        if self.behind:
            self._changed.set()
        return self.behind

    def catch_up(self) -> None:
        """Take over all there is: for who has nothing else to do."""
        while self.step():
            pass

    def look_up(
        self, high: Array, low: Array, port: Array, protocol: Array, number: Callable[[Any], int]
    ) -> Array:
        """Numbers that `number` gives the names of these addresses and ports."""
        rest = port.astype("u8") << np.uint64(8) | protocol
        mixed = mix(high, low, rest)
        own = self._frontends.look_up(mixed, high, low, rest)
        np.copyto(own, self._backends.look_up(mixed, high, low, rest), where=own == NOTHING)
        return self._names.interned(own, number)

    def forget_numbers(self) -> None:
        """What `number` gave has lost its meaning."""
        self._names.forget_numbers()

    # --- taking over ---------------------------------------------------------------------------------

    def _take_over(
        self, backends: Iterator[Change[BackendRow]], frontends: Iterator[Change[FrontendRow]]
    ) -> Iterator[None]:
        """All that both tables changed up to one moment; a step ends at each `yield`.

        Addresses that backends gave up go before the new ones come: one may pass from id to id.
        """
        came: list[BackendRow] = []
        gone: dict[Key, int] = {}
        for count, change in enumerate(backends, 1):
            if change.old is not None:
                del self._rows[change.old.id]
                gone[key_of(change.old.address, change.old.port, change.old.protocol)] = NOTHING
            if change.new is not None:
                came.append(change.new)
            if count % STEP == 0:
                self._backends.put(gone)
                gone = {}
                yield
        self._backends.put(gone)
        for start in range(0, len(came), STEP):
            part = came[start : start + STEP]
            self._rows.update((row.id, row) for row in part)
            self._name([row.id for row in part])
            yield
        named: dict[Key, int] = {}
        touched: set[int] = set()
        for frontend in frontends:
            self._take_frontend(frontend, named, touched)
            if len(named) + len(touched) >= STEP:
                yield from self._flush(named, touched)
                named, touched = {}, set()
        yield from self._flush(named, touched)

    def _take_frontend(self, change: Change[FrontendRow], named: dict[Key, int], touched: set[int]) -> None:
        old, new = change.old, change.new
        own = self._names.take(ServiceName(new.namespace, new.service)) if new is not None else NOTHING
        before = self._names.known(ServiceName(old.namespace, old.service)) if old is not None else NOTHING
        had, has = set(old.backends if old else ()), set(new.backends if new else ())
        stay = had & has if own == before else set()
        for backend in had - stay:
            self._uses.remove(backend, before)
        for backend in has - stay:
            self._uses.add(backend, own)
        touched |= (had | has) - stay
        row = new or old
        assert row is not None
        named[key_of(row.address, row.port, row.protocol)] = own
        if before != NOTHING:
            self._names.give_up(before)

    def _flush(self, named: dict[Key, int], touched: set[int]) -> Iterator[None]:
        self._frontends.put(named)
        ids = list(touched)
        for start in range(0, len(ids), STEP):
            self._name(ids[start : start + STEP])
            yield
        self._names.free_given_up()
        yield

    def _name(self, ids: list[int]) -> None:
        """Names of these backends as the frontends taken over so far have it."""
        rows = [(row, self._uses.of(id)) for id in ids if (row := self._rows.get(id)) is not None]
        self._backends.put({key_of(row.address, row.port, row.protocol): own for row, own in rows})


class _Uses:
    """Backend → numbers of the services that have it. Nearly all are in one list of one service."""

    def __init__(self) -> None:
        self._sole: dict[int, int] = {}
        self._several: dict[int, dict[int, int]] = {}  # how many frontends of each

    def of(self, backend: int) -> int:
        """The only service that has the backend, or NOTHING."""
        several = self._several.get(backend)
        if several is None:
            return self._sole.get(backend, NOTHING)
        return next(iter(several)) if len(several) == 1 else NOTHING

    def add(self, backend: int, service: int) -> None:
        several = self._several.get(backend)
        if several is None:
            if backend not in self._sole:
                self._sole[backend] = service
                return
            several = self._several[backend] = {self._sole.pop(backend): 1}
        several[service] = several.get(service, 0) + 1

    def remove(self, backend: int, service: int) -> None:
        several = self._several.get(backend)
        if several is None:
            del self._sole[backend]
            return
        several[service] -= 1
        if not several[service]:
            del several[service]
        if sum(several.values()) == 1:
            (self._sole[backend],) = several
            del self._several[backend]


class _Names:
    """Own numbers of service names, as long as frontends have them, and the interned number of each.

    Interned only when a flow needs it: the names of services nobody talks to need no room there.
    """

    def __init__(self) -> None:
        self._names: list[ServiceName | None] = [None]
        self._own: dict[ServiceName, int] = {}
        self._users: list[int] = [0]
        self._given_up: set[int] = set()
        self._free: list[int] = []
        self._interned = np.zeros(64, dtype="u4")

    def known(self, name: ServiceName) -> int:
        return self._own[name]

    def take(self, name: ServiceName) -> int:
        own = self._own.get(name)
        if own is None:
            own = self._own[name] = self._free.pop() if self._free else len(self._names)
            if own == len(self._names):
                self._names.append(name)
                self._users.append(0)
            self._names[own] = name
        self._users[own] += 1
        return own

    def give_up(self, own: int) -> None:
        self._users[own] -= 1
        self._given_up.add(own)

    def free_given_up(self) -> None:
        """Nothing in the indexes has these numbers any more, unless somebody took them again."""
        for own in self._given_up:
            name = self._names[own]
            if not self._users[own] and name is not None:
                del self._own[name]
                self._names[own] = None
                self._free.append(own)
                if own < len(self._interned):
                    self._interned[own] = NOTHING
        self._given_up.clear()

    def interned(self, own: Array, number: Callable[[Any], int]) -> Array:
        if len(self._names) > len(self._interned):
            grown = np.zeros(len(self._names) * 2, dtype="u4")
            grown[: len(self._interned)] = self._interned
            self._interned = grown
        found: Array = self._interned[own]
        missing = (own != NOTHING) & (found == NOTHING)
        if missing.any():
            for one in np.unique(own[missing]).tolist():
                self._interned[one] = number(self._names[one])
            found = self._interned[own]
        return found

    def forget_numbers(self) -> None:
        self._interned[:] = NOTHING
