"""The queue of a controller: no change is missed, no key is in two hands, failures wait longer and longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podwire.base.aio import Backoff
from podwire.base.queue import Queue

BACKOFF = Backoff(1.0, 64.0)  # give or take a fifth


def made() -> Queue[str]:
    return Queue(BACKOFF)


def test_each_key_once_and_in_order() -> None:
    queue = made()
    for key in "abab":
        queue.add(key)
    assert [queue.take(0), queue.take(0), queue.take(0)] == ["a", "b", None]
    assert queue.added == 4


def test_what_changes_under_way_is_due_again_after_it() -> None:
    queue = made()
    queue.add("a")
    assert queue.take(0) == "a"
    queue.add("a")
    assert queue.take(0) is None  # it is in somebody's hands
    queue.done("a", again=50.0)
    assert queue.take(0) == "a"
    queue.done("a")
    assert queue.idle and queue.next() is None  # the look that was planned was had


def test_failures_wait_longer_and_longer_and_a_change_does_not() -> None:
    queue, now, waits = made(), 0.0, []
    queue.add("a")
    for number in range(1, 5):
        assert queue.take(now) == "a"
        assert queue.failed("a", now) == number
        due = queue.next()
        assert due is not None and queue.take(due - 0.01) is None
        waits.append(due - now)
        now = due
    assert [0.8 <= wait / 2.0**number <= 1.2 for number, wait in enumerate(waits)] == [True] * 4
    assert (queue.failing, queue.idle) == (1, False)
    queue.add("a")
    assert queue.take(now - 0.01) == "a"
    queue.done("a")
    assert (queue.failing, queue.idle, queue.retried) == (0, True, 3)
    assert queue.take(now + 100) is None


def test_what_is_put_off_keeps_its_failures() -> None:
    queue = made()
    queue.add("a")
    queue.take(0)
    queue.failed("a", 0.0)
    queue.add("a")
    assert queue.take(0) == "a"
    queue.put_off("a", 7.0)
    assert (queue.take(6.9), queue.take(7.0)) == (None, "a")
    assert queue.failed("a", 7.0) == 2


def test_the_failures_of_one_key_are_not_those_of_another() -> None:
    queue = made()
    for _ in range(8):
        queue.add("bad")
        queue.take(0)
        queue.failed("bad", 0.0)
    queue.add("good")
    assert queue.take(0) == "good"
    assert queue.failed("good", 0.0) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "take", "done", "again", "fail", "off", "wait"]), st.integers(0, 3)),
    max_size=80,
)


@given(STEPS)
def test_nothing_is_lost_and_nothing_is_in_two_hands(steps: list[tuple[str, int]]) -> None:
    """Whatever happens, in the end each key was taken after its last change, and those that failed again."""
    queue: Queue[int] = Queue(BACKOFF)
    now, hands, unseen = 0.0, set[int](), set[int]()

    def take() -> bool:
        key = queue.take(now)
        if key is None:
            return False
        assert key not in hands
        hands.add(key)
        unseen.discard(key)
        return True

    for what, key in steps:
        if what == "add":
            queue.add(key)
            unseen.add(key)
        elif what == "take":
            take()
        elif what == "wait":
            now += 10.0**key
        elif key in hands:
            hands.remove(key)
            if what == "off":
                queue.put_off(key, now + 3.0)
                unseen.add(key)
            elif what == "fail":
                queue.failed(key, now)
                unseen.add(key)
            else:
                queue.done(key, now + 5.0 if what == "again" else None)
    for key in tuple(hands):
        queue.done(key)
    hands.clear()
    now += 1000.0
    while take():
        for key in tuple(hands):
            queue.done(key)
        hands.clear()
    assert not unseen
    assert queue.idle and queue.next() is None
