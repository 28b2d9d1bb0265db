"""What a controller still has to look at: each key once, in one hand, failed ones less and less often.

No clock and no waiting: time is an argument, in seconds of any steady clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from podwire.base.aio import Backoff

K = TypeVar("K", bound=Hashable)


class Queue(Generic[K]):
    """Keys in the order in which they became due.

    A key that is added while somebody works on it is due again when that is done: it is never in two hands,
    and no change is missed. One that failed is due after its own back-off, or as soon as it is added.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._due: dict[K, None] = {}
        self._working: dict[K, bool] = {}  # in somebody's hands → added meanwhile
        self._later: dict[K, float] = {}
        self._order: list[tuple[float, int, K]] = []  # of `_later`, with entries that hold no more
        self._count = 0
        self._failures: dict[K, int] = {}
        self.added = 0  # so often a key was added
        self.retried = 0  # so often one was due because it had failed

    def __len__(self) -> int:
        """Keys that are due and in nobody's hands."""
        return len(self._due)

    @property
    def failing(self) -> int:
        """Keys whose last try failed."""
        return len(self._failures)

    @property
    def idle(self) -> bool:
        """Nothing is due, under way, or failing; looks that are planned for later do not count."""
        return not self._due and not self._working and not self._failures

    def add(self, key: K) -> None:
        """It may have changed: it is due now."""
        self.added += 1
        if key in self._working:
            self._working[key] = True
        else:
            self._due[key] = None

    def take(self, now: float) -> K | None:
        """The next key that is due, into the caller's hands until `done` or `failed`; None if none is."""
        while self._order and self._order[0][0] <= now:
            when, _, key = heapq.heappop(self._order)
            if self._later.get(key) == when:
                del self._later[key]
                if key in self._failures:
                    self.retried += 1
                if key in self._working:
                    self._working[key] = True
                else:
                    self._due[key] = None
        if not self._due:
            return None
        key = next(iter(self._due))
        del self._due[key]
        self._later.pop(key, None)  # a look that was planned is had now
        self._working[key] = False
        return key

    def put_off(self, key: K, until: float) -> None:
        """Nobody has looked at it: it is due at the moment `until`, and what it failed stays counted."""
        self._working[key] = False
        self._put_back(key, until)

    def done(self, key: K, again: float | None = None) -> None:
        """It is in order; to be looked at again at the moment `again`, if any."""
        self._failures.pop(key, None)
        self._put_back(key, again)

    def failed(self, key: K, now: float) -> int:
        """It is not, and is tried again; the number of failures in a row."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._put_back(key, now + self._backoff.after(count))
        return count

    def next(self) -> float | None:
        """The moment at which the next key is due for which nobody adds it; None if there is none."""
        while self._order and self._later.get(self._order[0][2]) != self._order[0][0]:
            heapq.heappop(self._order)
        return self._order[0][0] if self._order else None

    def _put_back(self, key: K, again: float | None) -> None:
        if self._working.pop(key):
            self._due[key] = None
        elif again is not None:
            self._later[key] = again
            self._count += 1
            heapq.heappush(self._order, (again, self._count, key))
