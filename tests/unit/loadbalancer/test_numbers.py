"""Numbers stay, and are not used again soon."""

from __future__ import annotations

import pytest

from podwire.loadbalancer import numbers
from podwire.loadbalancer.numbers import Numbers, OutOfNumbers, Sets, content_number


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


def test_sets_are_named_by_content() -> None:
    sets = Sets()
    one = sets.take((1, 2, 3))
    assert one == content_number((1, 2, 3)) == sets.take((1, 2, 3)) != sets.take((3, 2, 1))
    assert sets.take(()) == 0


def test_colliding_contents_get_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    # 32 bits cannot be made to collide in a test, four can.
    monkeypatch.setattr(numbers, "content_number", lambda backends, salt=0: (sum(backends) + salt) % 16)
    sets = Sets()
    assert (sets.take((1, 2)), sets.take((3,)), sets.take((1, 2))) == (3, 4, 3)
    sets.release(3)
    assert sets.take((3,)) == 4
    sets.release(3)
    assert sets.take((2, 1)) == 3
