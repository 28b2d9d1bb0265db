"""Supervised tasks, channels, retries."""

import asyncio
from collections.abc import Iterator

import pytest

from podwire.base.aio import (
    Backoff,
    Channel,
    Closed,
    Room,
    Supervised,
    TaskEnded,
    Turns,
    boundary,
    each,
    eventually,
    in_slices,
)
from podwire.base.errors import NotFound


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_leaving_the_group_ends_its_tasks() -> None:
    async def scenario() -> list[str]:
        async with Supervised("test") as group:
            group.start("wait", forever())
            running = group.running
        return running

    assert asyncio.run(scenario()) == ["wait"]


def test_an_eternal_task_that_ends_is_a_fault() -> None:
    async def scenario() -> None:
        async with Supervised("test") as group:
            group.start("end at once", asyncio.sleep(0))
            await group.wait()

    with pytest.raises(TaskEnded, match="end at once"):
        asyncio.run(scenario())


def test_the_error_of_a_task_is_the_error_of_the_group() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def scenario() -> None:
        async with Supervised("test") as group:
            group.start("wait", forever())
            group.once("fail", fail())
            await group.wait()

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(scenario())


def test_a_full_channel_makes_the_sender_wait() -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(1)
        got = []

        async def send() -> None:
            for number in range(3):
                await channel.send(number)
            channel.close()

        async with Supervised("test") as group:
            group.once("send", send())
            async for number in channel:
                got.append(number)
        return got

    assert asyncio.run(scenario()) == [0, 1, 2]


def test_an_offer_drops_the_oldest_and_counts_it() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(2)
        for number in range(5):
            channel.offer(number)
        statistics = channel.statistics()
        assert (statistics.sent, statistics.dropped, statistics.length) == (5, 3, 2)
        assert [await channel.receive(), await channel.receive()] == [3, 4]
        channel.close()
        with pytest.raises(Closed):
            await channel.receive()

    asyncio.run(scenario())


def test_backoff_doubles_up_to_its_limit() -> None:
    assert Backoff(1, 8).after(5000) < 10, "after hours of failures, too"
    waits = [Backoff(1, 8).after(failures) for failures in range(1, 8)]
    assert 0.8 <= waits[0] <= 1.2
    assert all(wait <= 9.6 for wait in waits)


def test_eventually_names_what_it_waited_for() -> None:
    with pytest.raises(TimeoutError, match="the moon"):
        asyncio.run(eventually(lambda: False, timeout=0.05, what="the moon"))


def test_one_at_a_time_has_a_key_also_when_another_comes_as_it_changes_hands() -> None:
    async def scenario() -> None:
        turns: Turns[str] = Turns()
        inside = 0

        async def work(steps: int) -> None:
            nonlocal inside
            async with turns.of("a"):
                inside += 1
                assert inside == 1
                for _ in range(steps):
                    await asyncio.sleep(0)
                inside -= 1

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(work(number % 3))
                if number % 4 == 3:
                    await asyncio.sleep(0)
        assert len(turns) == 0

    asyncio.run(scenario())


def test_tasks_of_one_name_are_two_tasks() -> None:
    async def scenario() -> tuple[list[str], list[bool]]:
        async with Supervised("test") as group:
            tasks = [group.once("the same", forever()) for _ in range(2)]
            running = group.running
        return running, [task.cancelled() for task in tasks]

    assert asyncio.run(asyncio.wait_for(scenario(), 5)) == (["the same"] * 2, [True, True])


def test_a_boundary_keeps_what_fails_inside_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Exception] = []
    for error in (NotFound("there is no such thing"), ZeroDivisionError("broken")):
        with boundary("an object", told.append):
            raise error
    assert [type(one) for one in told] == [NotFound, ZeroDivisionError]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["an object failed: there is no such thing", "an object failed"]
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def test_a_boundary_keeps_a_report_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def tell(error: Exception) -> None:
        raise LookupError("nobody to tell")

    with boundary("an object", tell):
        raise ValueError("broken")
    assert "the failure of an object could not be reported" in caplog.text


def test_a_boundary_lets_cancellation_pass() -> None:
    async def scenario() -> bool:
        async def work() -> None:
            with boundary("an object"):
                await forever()

        async with Supervised("test") as group:
            task = group.once("work", work())
            await asyncio.sleep(0)
        return task.cancelled()

    assert asyncio.run(scenario())


def test_room_is_limited_and_given_back(caplog: pytest.LogCaptureFixture) -> None:
    room = Room("guests", 2)
    with room.one() as first, room.one() as second:
        for _ in range(4):
            with room.one() as third:
                assert (first, second, third) == (True, True, False)
    assert (room.taken, room.refused) == (0, 4)
    with pytest.raises(ValueError, match="broken"), room.one():
        raise ValueError("broken")
    assert room.taken == 0
    assert len(caplog.records) == 3  # for the first, the second, and the fourth


def test_between_slices_others_run() -> None:
    seen: list[str] = []

    def steps() -> Iterator[None]:
        for number in range(3):
            seen.append(f"step {number}")
            yield

    async def other() -> None:
        for _ in range(2):
            seen.append("other")
            await asyncio.sleep(0)

    async def scenario(most: float) -> list[str]:
        seen.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(in_slices(steps(), most))
            group.create_task(other())
        return list(seen)

    assert asyncio.run(scenario(0))[:4] == ["step 0", "other", "step 1", "other"]
    assert asyncio.run(scenario(3600))[:3] == ["step 0", "step 1", "step 2"]


def test_each_is_done_and_never_more_than_so_many_at_once() -> None:
    at_work, most, done = set[int](), 0, list[int]()

    async def work(number: int) -> None:
        nonlocal most
        at_work.add(number)
        most = max(most, len(at_work))
        await asyncio.sleep(0)
        at_work.discard(number)
        done.append(number)

    asyncio.run(each(range(20), work, 4))
    assert sorted(done) == list(range(20)) and most == 4


def test_of_each_the_first_failure_is_raised() -> None:
    async def work(number: int) -> None:
        if number == 2:
            raise NotFound("no")
        await forever()

    with pytest.raises(NotFound):
        asyncio.run(each(range(5), work, 3))
