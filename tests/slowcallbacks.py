"""No callback holds an event loop for long: whoever else waits for that loop waits as long.

Every step of a task and every callback of asyncio goes through `asyncio.Handle._run`. It is measured
there, by the CPU time of the thread: on a busy machine the wall clock would accuse the innocent.
What the garbage collector takes is left out: it looks through all that a thousand tests before have left in
this process, and which callback it comes in is chance.
"""

from __future__ import annotations

import asyncio
import gc
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


def longest_callback(folder: tuple[str, ...]) -> float | None:
    """The limit of tests in a folder below `tests`; None where loops are not watched."""
    return next((limit for start, limit in LIMITS.items() if folder[: len(start)] == start), None)


@contextmanager
def slow_callbacks(limit: float) -> Iterator[list[str]]:
    """What held a loop of this process for longer than `limit` seconds meanwhile, with how long."""
    slow: list[str] = []
    collecting, collected = 0.0, 0.0

    def collector(phase: str, _: object) -> None:
        nonlocal collecting, collected
        if phase == "start":
            collecting = time.thread_time()
        else:
            collected += time.thread_time() - collecting

    def measured(handle: Any) -> None:
        started, before = time.thread_time(), collected
        try:
            _run(handle)
        finally:
            took = time.thread_time() - started - (collected - before)
            if took > limit:
                slow.append(f"{took:.3f} s of CPU time: {handle!r}")

    asyncio.Handle._run = measured  # type: ignore[method-assign]
    gc.callbacks.append(collector)
    try:
        yield slow
    finally:
        gc.callbacks.remove(collector)
        asyncio.Handle._run = _run  # type: ignore[method-assign]
