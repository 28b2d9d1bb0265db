"""Addresses of pods: the first first, round and round, all or nothing, and back."""

from __future__ import annotations

import pytest

from podwire.base.errors import Conflict, InvalidObject, NotFound
from podwire.ipam import pools
from podwire.ipam.pools import Pools


def test_the_first_pod_gets_the_first_address() -> None:
    found = Pools(["10.0.2.0/24", "fd00:10:0:2::/64"], ["10.0.2.254"])
    given = [found.allocate(f"default/pod{number}") for number in range(3)]
    assert [one.ipv4 for one in given] == ["10.0.2.1", "10.0.2.2", "10.0.2.3"]
    assert [one.ipv6 for one in given] == ["fd00:10:0:2::1", "fd00:10:0:2::2", "fd00:10:0:2::3"]
    assert found.allocate("one", "ipv6") == pools.Given(ipv6="fd00:10:0:2::4")


def test_an_address_that_came_back_is_not_given_at_once() -> None:
    found = Pools(["10.0.2.0/29"], ["10.0.2.6"])
    first = found.allocate("a").ipv4
    found.release(first)
    assert found.allocate("b").ipv4 != first
    assert {found.allocate(owner).ipv4 for owner in "cdef"} == {f"10.0.2.{n}" for n in (1, 3, 4, 5)}


def test_exhaustion_is_one_clear_error_and_nothing_is_taken() -> None:
    found = Pools(["fd00::/64", "10.0.2.0/29"], ["10.0.2.6"])
    for owner in range(5):
        found.allocate(str(owner))
    before = found.allocations()
    with pytest.raises(Conflict, match=r"all 5 addresses of 10\.0\.2\.0/29 are taken"):
        found.allocate("late")
    assert found.allocations() == before
    found.release("10.0.2.3")
    assert found.allocate("late", "ipv4").ipv4 == "10.0.2.3"


def test_a_family_the_node_does_not_have() -> None:
    with pytest.raises(InvalidObject):
        Pools(["10.0.2.0/24"], []).allocate("a", "ipv6")


def test_what_nobody_has_cannot_come_back() -> None:
    found = Pools(["10.0.2.0/24"], [])
    for address in ("10.0.2.1", "10.9.9.9", "nonsense"):
        with pytest.raises(NotFound):
            found.release(address)


def test_what_nobody_attaches_expires() -> None:
    found = Pools(["10.0.2.0/24"], [])
    kept, lost = (found.allocate(owner, expiration=True) for owner in ("kept", "lost"))
    assert kept.expires and lost.expires
    found.attached(kept.ipv4)
    assert found.expire(0) == []
    assert found.expire(float("inf")) == [lost.ipv4]
    assert found.allocations() == {kept.ipv4: "kept"}


def test_after_a_restart_what_is_taken_is_taken() -> None:
    found = Pools(["10.0.2.0/24"], ["10.0.2.254"])
    found.restore({"10.0.2.1": "a", "10.0.2.7": "b", "10.9.9.9": "elsewhere"})
    assert found.allocate("c").ipv4 == "10.0.2.8"
    assert set(found.allocations()) == {"10.0.2.1", "10.0.2.7", "10.0.2.8"}


def test_a_cidr_that_is_no_more_the_nodes_gives_nothing_and_keeps_what_is_taken() -> None:
    found = Pools(["10.0.2.0/24"], ["10.0.2.254"])
    old = found.allocate("a").ipv4
    found.use(["10.0.3.0/24"], ["10.0.3.254"])
    assert found.allocate("b").ipv4 == "10.0.3.1"
    assert found.leaving() == {"10.0.2.0/24": (old,)}
    assert old in found.allocations()
    found.use(["10.0.2.0/24", "10.0.3.0/24"], ["10.0.2.254", "10.0.3.254"])
    assert found.leaving() == {}
    assert found.allocate("c").ipv4 == "10.0.2.2", "what was taken is known when the CIDR is back"
    found.use(["10.0.3.0/24"], ["10.0.3.254"])
    found.release(old)
    found.release("10.0.2.2")
    assert found.leaving() == {}
