"""A loop that is held up says for how long."""

from __future__ import annotations

import asyncio
import threading

from podwire.base.aio import cancelling, eventually
from podwire.base.lag import LATE, SPAN, Lag


def test_the_longest_is_of_the_last_minute_or_two() -> None:
    lag = Lag()
    assert lag.longest(1000.0) == 0.0
    lag.note(0.02, 1001.0)
    lag.note(0.3, 1002.0)
    lag.note(0.01, 1003.0)
    assert (lag.longest(1004.0), lag.late) == (0.3, 1)
    lag.note(0.05, 1002.0 + SPAN)
    assert lag.longest(1003.0 + SPAN) == 0.3
    lag.note(0.04, 1004.0 + 2 * SPAN)
    assert lag.longest(1005.0 + 2 * SPAN) == 0.05
    assert lag.longest(1005.0 + 5 * SPAN) == 0.0, "whoever asks after long hears nothing old"
    assert lag.late == 1


def test_a_loop_that_is_held_up_is_late() -> None:
    async def main() -> None:
        lag, clock = Lag(), asyncio.get_running_loop().time
        async with cancelling("measure", lag.run()):
            await asyncio.sleep(0)  # its timer is set
            threading.Event().wait(2 * LATE)  # what a slow callback does, but for the work
            await eventually(lambda: lag.late, timeout=10, what="its being late")
            assert lag.longest(clock()) > LATE

    asyncio.run(main())
