"""The guard on event loops sees what holds one, and only that."""

from __future__ import annotations

import asyncio
import gc
import time

from tests.slowcallbacks import longest_callback, slow_callbacks


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_what_holds_the_loop_is_named() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(busy, 0.03)
        await asyncio.sleep(0)

    with slow_callbacks(0.02) as slow:
        asyncio.run(main())
    assert len(slow) == 1 and "busy" in slow[0]


def test_who_waits_or_works_in_a_thread_holds_nothing() -> None:
    async def main() -> None:
        await asyncio.to_thread(busy, 0.1)

    with slow_callbacks(0.05) as slow:
        asyncio.run(main())
    assert not slow


def test_what_the_collector_takes_is_not_the_callbacks() -> None:
    def collects(phase: str, _: object) -> None:
        if phase == "start":
            busy(0.1)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(gc.collect)
        await asyncio.sleep(0)

    with slow_callbacks(0.05) as slow:
        gc.callbacks.append(collects)
        try:
            asyncio.run(main())
        finally:
            gc.callbacks.remove(collects)
    assert not slow


def test_folders_have_limits() -> None:
    assert longest_callback(("unit", "hubble")) == longest_callback(("loopback", "hubble")) == 0.1
    assert longest_callback(("cluster", "faults")) is None
