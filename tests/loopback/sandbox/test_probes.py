"""Probes of containers: how tries are counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from podwire.base import aio
from podwire.sandbox.runner import probes

PERIOD = 0.3


def test_quick_tries_of_a_starting_server_count_as_one_failure_in_a_period() -> None:
    probe: dict[str, Any] = {"exec": {"command": ["false"]}, "periodSeconds": PERIOD, "failureThreshold": 3}
    tried: list[float] = []
    ended: list[float] = []

    async def fails(command: list[str], timeout: float) -> tuple[int, str]:
        tried.append(asyncio.get_running_loop().time())
        return 1, "not yet"

    def report(good: bool, why: str) -> None:
        assert (good, why) == (False, "not yet")
        ended.append(tried[-1])

    async def main() -> None:
        target = probes.Target(Path("/nowhere"), "192.0.2.1", {})
        async with aio.cancelling("watch", probes.watch(probe, target, fails, report)):
            await aio.eventually(lambda: bool(ended), timeout=10, what="the threshold")

    asyncio.run(main())
    assert ended[0] - tried[0] >= 2 * PERIOD * 0.9
