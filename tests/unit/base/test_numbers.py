"""Numbers in a circle, against a plain model of one."""

from __future__ import annotations

import random

from podwire.base.numbers import Circle


def test_numbers_go_round() -> None:
    circle = Circle(5, 7)
    assert [circle.next(lambda _: False) for _ in range(4)] == [5, 6, 7, 5]


def test_one_given_back_rests_while_there_are_others() -> None:
    circle, taken = Circle(1, 4), set[int]()
    for _ in range(2):
        taken.add(circle.next(taken.__contains__) or 0)
    taken.remove(2)
    assert circle.next(taken.__contains__) == 3


def test_all_taken() -> None:
    looked: list[int] = []

    def taken(number: int) -> bool:
        looked.append(number)
        return True

    assert Circle(1, 65535).next(taken) is None
    assert sorted(looked) == list(range(1, 65536))  # each once
    assert Circle(3, 2).next(lambda _: False) is None


def test_no_more_are_looked_at_than_can_be_taken() -> None:
    looked: list[int] = []

    def taken(number: int) -> bool:
        looked.append(number)
        return True

    assert Circle(1, 1 << 64).next(taken, most=3) is None
    assert looked == [1, 2, 3, 4]


def test_an_earlier_life_is_gone_on_with() -> None:
    circle = Circle(1, 9)
    circle.begin_after(9)
    assert circle.next(lambda _: False) == 1
    circle.begin_after(4)
    circle.begin_after(10)  # of a larger circle
    circle.begin_after(0)
    assert circle.next(lambda _: False) == 5


def test_random_lives_agree_with_the_definition() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(200):
        first = dice.randrange(-3, 4)
        last = first + dice.randrange(0, 9)
        circle, taken, given = Circle(first, last), set[int](), last
        for _ in range(30):
            if taken and dice.random() < 0.4:
                taken.remove(dice.choice(sorted(taken)))
                continue
            order = [*range(given + 1, last + 1), *range(first, given + 1)]
            expected = next((number for number in order if number not in taken), None)
            assert circle.next(taken.__contains__, most=len(taken)) == expected
            if expected is not None:
                taken.add(expected)
                given = expected
