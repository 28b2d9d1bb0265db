"""Shares of places: one client's flood, and many clients' floods, leave room for others."""

from __future__ import annotations

import random
import resource

from podwire.base.door import DESCRIPTORS, Admission, affordable


def test_one_client_has_a_share_and_gives_it_back() -> None:
    places = Admission("connections", 64, ("10.0.0.1",))
    taken = [places.enter("10.1.0.1") for _ in range(5)]
    assert [one is not None for one in taken] == [True] * 4 + [False]
    assert places.refused == 1
    other = places.enter("10.1.0.2")
    assert other is not None and places.taken == 5
    for leave in taken[:4]:
        assert leave is not None
        leave()
        leave()  # a second time is no second place
    assert places.taken == 1
    assert places.enter("10.1.0.1") is not None


def test_all_others_together_leave_room_for_nodes_and_this_machine() -> None:
    places = Admission("connections", 64, ("10.0.0.1", "fd00::1"))
    pods = [places.enter(f"10.1.{number}.1") for number in range(200)]
    assert sum(one is not None for one in pods) == 48
    for client in ("10.0.0.1", "fd00::1", "127.0.0.1", "127.8.9.1", "::1", ""):
        assert places.enter(client) is not None, client
    assert sum(places.enter("10.0.0.1") is not None for _ in range(64)) < 16
    assert places.taken <= 64


def test_places_add_up_whatever_comes_and_goes() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    places = Admission("connections", 32, ("10.0.0.1",))
    held = []
    for _ in range(5000):
        if held and chance.random() < 0.5:
            held.pop(chance.randrange(len(held)))()
        else:
            leave = places.enter(chance.choice(["10.0.0.1", "::1", "", *(f"10.1.0.{n}" for n in range(40))]))
            held += [leave] if leave is not None else []
        assert places.taken == len(held) <= 32
    for leave in held:
        leave()
    assert places.taken == 0 and not places._taken  # nothing is kept of who went away


def test_places_are_measured_for_the_descriptors_there_are() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert affordable(4096) == 4096 * min(hard, DESCRIPTORS) // DESCRIPTORS
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(hard, DESCRIPTORS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
