"""Names of services, followed change by change, are those that tables read from scratch would give."""

from __future__ import annotations

import random

import numpy as np
import pytest

from podwire.hubble.addressindex import WAITING, AddressIndex, key_of, mix
from podwire.hubble.intern import Interner
from podwire.hubble.services import STEP, ServiceIndex
from podwire.model.flow import ServiceName
from podwire.state.tables import BackendRow, FrontendRow, Tables

TCP, UDP = 6, 17
Address = tuple[str, int, int]


def from_scratch(tables: Tables) -> dict[Address, ServiceName]:
    """The definition: a frontend's own service; a backend's, if just one service has it."""
    serving: dict[int, set[ServiceName]] = {}
    for row in tables.frontends:
        for backend in row.backends:
            serving.setdefault(backend, set()).add(ServiceName(row.namespace, row.service))
    named = {
        (row.address, row.port, row.protocol): next(iter(serving[row.id]))
        for row in tables.backends
        if len(serving.get(row.id, ())) == 1
    }
    for row in tables.frontends:
        named[row.address, row.port, row.protocol] = ServiceName(row.namespace, row.service)
    return named


def looked_up(index: ServiceIndex, names: Interner, addresses: list[Address]) -> dict[Address, ServiceName]:
    keys = np.array([key_of(*address) for address in addresses], dtype="u8")
    high, low, rest = keys.T
    numbers = index.look_up(
        high, low, (rest >> np.uint64(8)).astype("u2"), (rest & np.uint64(255)).astype("u1"), names.number
    )
    return {
        address: names.values[number]
        for address, number in zip(addresses, numbers.tolist(), strict=True)
        if number
    }


class Story:
    """Random changes of a small world; an address belongs to one backend id at a time, as in life."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.tables = Tables()
        self.pods: list[Address] = [
            (f"10.0.{i}.{j}" if j % 2 else f"fd00::{i}:{j}", 8080, TCP) for i in range(4) for j in range(12)
        ]
        # One of them is a pod's address as well.
        self.services: list[Address] = [(f"10.96.0.{i}", 80, TCP) for i in range(12)] + [self.pods[3]]

    def change(self) -> None:
        self.chance.choice(
            (
                self._backend,
                self._backend,
                self._no_backend,
                self._frontend,
                self._frontend,
                self._no_frontend,
            )
        )()

    def _backend(self) -> None:
        held = {(row.address, row.port, row.protocol) for row in self.tables.backends}
        free = [address for address in self.pods if address not in held]
        if free:
            address = self.chance.choice(free)
            self.tables.backends.put(BackendRow(self.chance.randrange(1, 40), *address, "active"))

    def _no_backend(self) -> None:
        self.tables.backends.delete(self.chance.randrange(1, 40))

    def _frontend(self) -> None:
        address = self.chance.choice(self.services)
        ids = tuple(sorted(self.chance.sample(range(1, 40), self.chance.randrange(6))))
        service = f"s{self.chance.randrange(5)}"
        self.tables.frontends.put(FrontendRow(*address, "prod", service, "", "ClusterIP", 1, 1, ids))

    def _no_frontend(self) -> None:
        self.tables.frontends.delete(self.chance.choice(self.services))


@pytest.mark.parametrize("number", range(30))
def test_random_stories(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    monkeypatch.setattr("podwire.hubble.services.STEP", chance.choice((1, 3, STEP)))
    monkeypatch.setattr("podwire.hubble.addressindex.WAITING", chance.choice((0, 2, WAITING)))
    story = Story(chance)
    for _ in range(chance.randrange(60)):
        story.change()
    index = ServiceIndex(story.tables)
    names = Interner(1 << 10, lambda mark: None)
    everything = [*story.pods, *story.services]
    for _ in range(120):
        for _ in range(chance.randrange(8)):
            story.change()
            if chance.random() < 0.3:
                index.step()
                looked_up(index, names, everything)
        if chance.random() < 0.1:
            names.sweep()
            index.forget_numbers()
        index.catch_up()
        assert not index.behind
        assert looked_up(index, names, everything) == from_scratch(story.tables)


def test_many_rows_are_taken_over_in_steps() -> None:
    tables = Tables()
    for service in range(300):
        ids = tuple(range(service * 10 + 1, service * 10 + 11))
        for number in ids:
            tables.backends.put(BackendRow(number, f"10.1.{number >> 8}.{number & 255}", 80, TCP, "active"))
        address = f"10.96.{service >> 8}.{service & 255}"
        tables.frontends.put(FrontendRow(address, 80, TCP, "prod", f"s{service}", "", "ClusterIP", 1, 1, ids))
    index, names = ServiceIndex(tables), Interner(1 << 10, lambda mark: None)
    steps = 1
    while index.step():
        steps += 1
    assert steps >= 2 * 3000 // STEP
    assert len(names) == 0  # nobody has asked
    assert looked_up(index, names, [("10.1.3.7", 80, TCP)]) == {
        ("10.1.3.7", 80, TCP): ServiceName("prod", "s77")
    }
    assert len(names) == 1
    # One endpoint more is one step more, whatever there is.
    old = tables.frontends.get(("10.96.0.0", 80, TCP))
    assert old is not None
    tables.backends.put(BackendRow(5000, "10.2.0.1", 80, TCP, "active"))
    tables.frontends.put(
        FrontendRow("10.96.0.0", 80, TCP, "prod", "s0", "", "ClusterIP", 1, 2, (*old.backends, 5000))
    )
    while index.step():
        pass
    assert looked_up(index, names, [("10.2.0.1", 80, TCP)]) == {
        ("10.2.0.1", 80, TCP): ServiceName("prod", "s0")
    }


def test_an_index_forgets_what_is_removed_and_stays_small() -> None:
    index = AddressIndex()
    for turn in range(6):
        keys = [key_of(f"10.{turn}.{i >> 8}.{i & 255}", 80, UDP) for i in range(1000)]
        index.put({key: 7 for key in keys})
        assert len(index) == 1000
        high, low, rest = np.array(keys, dtype="u8").T
        assert (index.look_up(mix(high, low, rest), high, low, rest) == 7).all()
        index.put(dict.fromkeys(keys, 0))
        assert len(index) == 0
        assert not index.look_up(mix(high, low, rest), high, low, rest).any()
