"""No callback holds an event loop for long: whoever else waits for that loop waits as long.

Every step of a task and every callback of asyncio goes through `asyncio.Handle._run`. It is measured
there, by the CPU time of the thread: on a busy machine the wall clock would accuse the innocent. The same
work takes more CPU time, too, where others use the caches and the other half of a core: so what took too
long is compared with what a known piece of work takes in that moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# By folder, in seconds. A client's keep-alive, a CNI plugin or a full ring wait a tenth at most. The
# embedded API server makes its certificates and schemas when it starts, and tests start it in their loop.
LIMITS: dict[tuple[str, ...], float] = {
    ("unit",): 0.1,
    ("loopback", "hubble"): 0.1,
    ("loopback",): 0.5,
}
_run = asyncio.Handle._run


def _known_work() -> float:
    """Seconds of CPU time that some milliseconds of work take here and now."""
    started = time.thread_time()
    sum(number % 7 for number in range(40_000))
    return time.thread_time() - started


_UNDISTURBED = min(_known_work() for _ in range(5))


def longest_callback(folder: tuple[str, ...]) -> float | None:
    """The limit of tests in a folder below `tests`; None where loops are not watched."""
    return next((limit for start, limit in LIMITS.items() if folder[: len(start)] == start), None)


@contextmanager
def slow_callbacks(limit: float) -> Iterator[list[str]]:
    """What held a loop of this process for longer than `limit` seconds meanwhile, with how long."""
    slow: list[str] = []

    def measured(handle: Any) -> None:
        started = time.thread_time()
        try:
            _run(handle)
        finally:
            took = time.thread_time() - started
            if took > limit and took > limit * min(_known_work() for _ in range(3)) / _UNDISTURBED:
                slow.append(f"{took:.3f} s of CPU time: {handle!r}")

    asyncio.Handle._run = measured  # type: ignore[method-assign]
    try:
        yield slow
    finally:
        asyncio.Handle._run = _run  # type: ignore[method-assign]
