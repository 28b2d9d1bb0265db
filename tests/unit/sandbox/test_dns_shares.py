"""Whose query is next, and whose is withheld."""

from __future__ import annotations

import random

from podwire.sandbox.dns.datagrams import BUSY, CLIENTS, SHARE, WAITING, Shares


def test_turns_are_taken_by_address() -> None:
    shares = Shares()
    for number in range(10):
        assert shares.put("10.0.1.1", f"a{number}", 0.0)
    assert shares.put("10.0.1.2", "b0", 0.0) and shares.put("fd00::3", "c0", 0.0)
    assert [shares.take() for _ in range(5)] == ["a0", "b0", "c0", "a1", "a2"]
    assert len(shares) == 7
    assert [shares.take() for _ in range(8)] == [*(f"a{number}" for number in range(3, 10)), None]


def test_what_waits_is_bounded_per_address() -> None:
    shares = Shares()
    assert [shares.put("10.0.1.1", 0, 0.0) for _ in range(WAITING + 3)].count(True) == WAITING
    assert shares.withheld == 3
    assert shares.put("10.0.1.2", 0, 0.0), "another address is another client"
    for number in range(1, 20):  # a node's pods have one /64: their floods are not each other's
        assert [shares.put(f"fd00:0:0:1::{number:x}", 0, 0.0) for _ in range(WAITING + 1)].count(
            True
        ) == WAITING
    assert shares.put("fd00:0:0:1::ffff", 0, 0.0)


def test_a_busy_second_is_shared() -> None:
    shares = Shares()

    def came(client: str, number: int, now: float) -> int:
        good = 0
        for _ in range(number):
            good += shares.put(client, 0, now)
            shares.take()  # answered at once: only how many come in a second counts
        return good

    assert came("10.0.1.1", BUSY - 100, 7.0) == BUSY - 100, "while nothing is busy, one may have all"
    assert came("10.0.1.1", 10 * BUSY, 7.9) == 100
    assert came("10.0.1.2", SHARE * 2, 7.9) == SHARE
    assert came("10.0.1.3", 5, 7.9) == 5
    assert shares.withheld == 10 * BUSY - 100 + SHARE
    assert came("10.0.1.1", 10, 8.0) == 10, "the next second is another"
    assert came("10.0.9.9", BUSY * 2, 9.0) == BUSY
    assert [came(f"fd00::{number:x}", SHARE * 2, 9.0) for number in range(1, 7)] == [SHARE] * 6


def test_nobody_is_starved_whatever_comes() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    shares, waiting = Shares(), 0
    for step in range(20_000):
        client = f"10.0.{chance.randrange(3)}.{1 + chance.randrange(5) ** 3}"
        waiting += shares.put(client, client, step / 4000)
        if chance.random() < 0.6 and shares.take() is not None:
            waiting -= 1
        assert len(shares) == waiting <= 15 * WAITING
    got = [shares.take() for _ in range(waiting)]
    assert None not in got and shares.take() is None


def test_clients_are_bounded() -> None:
    shares = Shares()
    for number in range(CLIENTS):
        shares.put(f"10.{number >> 8}.{number & 255}.1", 0, number / 1000)
    assert not shares.put("10.200.0.1", 0, 99.0) and shares.put("10.0.0.1", 0, 99.0)
