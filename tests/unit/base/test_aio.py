"""Supervised tasks, channels, retries."""

import asyncio

import pytest

from podwire.base.aio import Backoff, Channel, Closed, Supervised, TaskEnded, Turns, eventually, retry


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


def test_retry_gives_up_with_the_last_error() -> None:
    tries = []

    async def fail() -> None:
        tries.append(1)
        raise OSError(f"try {len(tries)}")

    with pytest.raises(OSError, match="try 3"):
        asyncio.run(retry("fail", fail, on=OSError, tries=3, backoff=Backoff(0.001, 0.002)))


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
