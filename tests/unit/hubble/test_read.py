"""emitted = received + lost + waiting, whatever happens."""

from __future__ import annotations

import random

import pytest

from podwire.hubble.read import Reader
from podwire.testing import flows


@pytest.fixture
def ring():
    made = flows.MemoryRing(capacity=100)
    yield made
    made.close()


def test_what_is_read_is_received(ring: flows.MemoryRing) -> None:
    reader = Reader(ring, ring.statistics)
    ring.emit(flows.joined([flows.event()] * 10))
    accounts = reader.accounts()
    assert (accounts.emitted, accounts.received, accounts.waiting) == (10, 0, 10)
    assert len(reader.read()) == 10
    accounts = reader.accounts()
    assert (accounts.emitted, accounts.received, accounts.waiting, accounts.lost) == (10, 10, 0, 0)
    assert accounts.reconciled


def test_an_overflowing_ring_is_accounted_for(ring: flows.MemoryRing) -> None:
    reader = Reader(ring, ring.statistics)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    emitted = 0
    for _ in range(200):
        count = chance.randrange(1, 60)
        emitted += count
        ring.emit(flows.joined([flows.event()] * count), cpu=chance.randrange(2))
        if chance.random() < 0.4:
            while len(reader.read()):
                pass
            accounts = reader.accounts()
            assert accounts.emitted == emitted == accounts.received + accounts.lost
            assert accounts.reconciled
            assert accounts.gap <= accounts.lost
    assert reader.accounts().lost > 0


def test_losses_are_told_once_and_by_cpu(ring: flows.MemoryRing) -> None:
    reader = Reader(ring, ring.statistics)
    ring.emit(flows.joined([flows.event()] * 130), cpu=1)
    found = reader.losses()
    assert [(loss.count, loss.cpu) for loss in found] == [(30, 1)]
    assert reader.losses() == []
    ring.emit(flows.joined([flows.event()] * 5), cpu=0)
    assert [(loss.count, loss.cpu) for loss in reader.losses()] == [(5, 0)]


def test_the_gap_in_the_numbers_is_what_was_lost_between(ring: flows.MemoryRing) -> None:
    reader = Reader(ring, ring.statistics)
    ring.emit(flows.joined([flows.event()] * 150))
    reader.read()
    assert reader.accounts().gap == 0  # nothing came after the loss yet
    ring.emit(flows.joined([flows.event()]))
    reader.read()
    assert reader.accounts().gap == 50 == reader.accounts().lost


def test_a_reader_that_comes_later_counts_what_waited_and_not_what_was_lost_before(
    ring: flows.MemoryRing,
) -> None:
    ring.emit(flows.joined([flows.event()] * 30))
    ring.read()
    ring.emit(flows.joined([flows.event()] * 120))  # 20 lost before there was a reader
    reader = Reader(ring, ring.statistics)
    ring.emit(flows.joined([flows.event()] * 7))  # and 7 after
    while len(reader.read()):
        pass
    accounts = reader.accounts()
    assert (accounts.received, accounts.lost, accounts.waiting) == (100, 7, 0)
    assert accounts.reconciled


def test_a_cpu_that_comes_later(ring: flows.MemoryRing) -> None:
    reader = Reader(ring, lambda: ring.statistics()[:1])
    batch = flows.joined([flows.event()] * 3)
    batch["cpu"], batch["sequence"] = 7, [1, 2, 3]
    reader._account(batch)
    assert reader.received == 3
