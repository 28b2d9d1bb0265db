"""Pools: each part once, whoever took it, and what was given back last."""

from __future__ import annotations

import ipaddress
import random

import pytest

from podwire.base.errors import ConfigError
from podwire.operator.podcidrs import Pool, apart


def cidr(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


@pytest.mark.parametrize(
    ("pool", "size", "last"), [("10.1.0.0/22", 24, "10.1.3.0/24"), ("fd00::/62", 64, "fd00:0:0:3::/64")]
)
def test_all_parts_of_a_pool_and_no_more(pool: str, size: int, last: str) -> None:
    made = Pool(pool, size)
    given = [made.next() for _ in range(5)]
    assert given[3:] == [cidr(last), None]
    assert len({str(one) for one in given[:4]}) == 4


def test_what_others_took_is_not_given_however_large_it_is() -> None:
    pool = Pool("10.1.0.0/16", 24)
    for taken in ("10.1.0.128/25", "10.1.2.0/23", "10.2.0.0/16", "fd00::/64"):
        pool.take(cidr(taken))
    assert [str(pool.next()) for _ in range(3)] == ["10.1.1.0/24", "10.1.4.0/24", "10.1.5.0/24"]
    whole = Pool("10.1.0.0/24", 26)
    whole.take(cidr("10.0.0.0/8"))
    assert whole.next() is None
    whole.give_back(cidr("10.0.0.0/8"))
    assert str(whole.next()) == "10.1.0.0/26"


def test_what_was_given_back_rests_as_long_as_there_is_other() -> None:
    pool = Pool("10.1.0.0/22", 24)
    first = pool.next()
    assert first is not None
    pool.give_back(first)
    assert [str(pool.next()) for _ in range(4)] == [f"10.1.{number}.0/24" for number in (1, 2, 3, 0)]


def test_two_that_hold_one_part_must_both_give_it_back() -> None:
    pool = Pool("10.1.0.0/24", 24)
    for _ in range(2):
        pool.take(cidr("10.1.0.0/24"))
    pool.give_back(cidr("10.1.0.0/24"))
    assert pool.next() is None


def test_random_stories_never_give_what_somebody_has() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance, pool, held = random.Random(seed), Pool("10.1.0.0/20", 24), []
    for _ in range(500):
        if held and chance.random() < 0.45:
            pool.give_back(held.pop(chance.randrange(len(held))))
            continue
        found = pool.next()
        assert (found is None) == (len(held) == 16)
        if found is not None:
            assert not any(found.overlaps(other) for other in held)
            held.append(found)


def test_pools_that_overlap_are_refused() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        apart([Pool("10.0.0.0/16", 24), Pool("10.1.0.0/16", 24), Pool("10.0.0.0/8", 24)])
    assert len(apart([Pool("10.0.0.0/16", 24), Pool("10.1.0.0/16", 24), Pool("fd00::/48", 64)])) == 3


@pytest.mark.parametrize(
    ("text", "size", "why"),
    [
        ("10.1.0.1/16", 24, "no CIDR"),
        ("pods", 24, "no CIDR"),
        ("10.1.0.0/16", 8, "cannot be cut"),
        ("10.1.0.0/16", 33, "cannot be cut"),
        ("fd00::/32", 64, "more than"),
    ],
)
def test_a_pool_that_is_none_is_refused(text: str, size: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Pool(text, size)
