"""How late an event loop is: what whoever waits for this process waits on top of everything else.

A timer that is due every `EVERY` seconds notes how much later than that it runs. That is time of the wall:
in it is what one callback took, what the garbage collector and other threads kept the interpreter for, and
how long the machine had no core for us. (The tests' guard over slow callbacks counts a callback's own CPU
time, so that a busy machine accuses nobody.)
"""

from __future__ import annotations

import asyncio

EVERY = 0.05  # s
SPAN = 60.0  # s that `longest` looks back over, at least; twice that at most
LATE = 0.1  # s: more than anybody should have to wait for a turn


class Lag:
    """Of the loop that `run` runs in."""

    def __init__(self) -> None:
        self.late = 0  # times that it was more than LATE
        self._longest = self._before = 0.0  # in this span, in the one before
        self._until = 0.0

    def longest(self, now: float) -> float:
        """Seconds, the most of the last minute or two."""
        self._turn_over(now)
        return max(self._longest, self._before)

    def note(self, lag: float, now: float) -> None:
        self._turn_over(now)
        self._longest = max(self._longest, lag)
        self.late += lag > LATE

    def _turn_over(self, now: float) -> None:
        if now >= self._until:
            self._before = self._longest if now < self._until + SPAN else 0.0
            self._longest, self._until = 0.0, now + SPAN

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + EVERY
            await asyncio.sleep(EVERY)
            now = clock()
            self.note(max(0.0, now - due), now)
