"""Numbers stay, and are not used again soon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.loadbalancer import numbers
from podwire.loadbalancer.numbers import Numbers, OutOfNumbers, Sets, name_number, placed


def test_numbers_are_kept_and_not_soon_reused() -> None:
    some: Numbers[str] = Numbers(10, {})
    assert [some.of(name) for name in "abca"] == [1, 2, 3, 1]
    some.release("b")
    assert some.of("d") == 4
    assert some.of("b") == 5


def test_restored_numbers_hold_and_new_ones_follow_them() -> None:
    some = Numbers(10, {"a": 7, "b": 3, "twice": 7, "wrong": 99})
    assert (some.of("a"), some.of("b"), some.of("c")) == (7, 3, 8)


def test_the_circle_closes_and_ends() -> None:
    some = Numbers(3, {"a": 3})
    assert (some.of("b"), some.of("c")) == (1, 2)
    with pytest.raises(OutOfNumbers):
        some.of("d")
    some.release("b")
    assert some.of("d") == 1


def test_few_backends_are_no_set() -> None:
    sets = Sets(few=2)
    assert sets.place("a", [7, 3]) == (0, (3, 7))
    number, places = sets.place("a", [3, 7, 5])
    assert number == name_number("a") and places == (3, 5, 7)
    assert sets.place("a", [9, 3, 7, 5]) == (number, (3, 5, 7, 9))
    assert sets.place("a", [5]) == (0, (5,))


def test_a_set_that_changes_keeps_its_number_and_places() -> None:
    sets = Sets(few=1)
    number, _ = sets.place("a", [1, 2, 3])
    assert sets.place("a", [1, 9, 3]) == (number, (1, 9, 3))
    assert sets.place("a", [9, 3]) == (number, (3, 9))  # the last moved into the gap
    assert sets.place("b", [1, 2])[0] != number


def test_colliding_names_get_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # 32 bits cannot be made to collide in a test, four can.
    monkeypatch.setattr(numbers, "name_number", lambda name, salt=0: (len(name) + salt) % 16)
    sets = Sets(few=0)
    assert [sets.place(name, [1])[0] for name in ("aaa", "bbb", "aaa")] == [3, 4, 3]
    sets.forget("aaa")
    assert [sets.place(name, [1])[0] for name in ("bbb", "ccc")] == [4, 3]


@given(st.lists(st.sets(st.integers(1, 12), max_size=9), max_size=8))
def test_as_many_as_possible_stay_where_they_stood(steps: list[set[int]]) -> None:
    places: tuple[int, ...] = ()
    for wanted in steps:
        before, places = places, placed(places, wanted)
        assert sorted(places) == sorted(wanted)
        stay = [at for at, number in enumerate(before) if number in wanted and at < len(wanted)]
        assert all(places[at] == before[at] for at in stay)
