"""Probes of containers: how tries are counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

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


ANSWERS = [
    b"",
    b"\n",
    b"x" * 200_000,
    b"HTTP/1.1 \xb2\xb2\xb2 odd digits\r\n",
    b"HTTP/1.1\r\n",
    b"\xff\xfe\r\n",
]


@pytest.mark.kernel
@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_whatever_a_pod_answers_is_the_failure_of_its_probe(answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            target = probes.Target(Path("/proc/self/ns/net"), "127.0.0.1", {})
            with pytest.raises(probes.ProbeFailed):
                await probes.once({"httpGet": {"port": port}}, target, no_exec)

    asyncio.run(main())


async def no_exec(command: list[str], timeout: float) -> tuple[int, str]:
    raise ValueError("embedded null byte")


@pytest.mark.parametrize(
    "probe",
    [
        {"exec": {"command": ["a\0b"]}},
        {"tcpSocket": {"port": 70000}},
        {"tcpSocket": {"port": "none-such"}},
        {"httpGet": {"port": 80, "host": "\0"}},
    ],
)
def test_a_probe_that_cannot_be_made_fails(probe: dict[str, Any]) -> None:
    target = probes.Target(Path("/nowhere"), "192.0.2.1", {})
    with pytest.raises(probes.ProbeFailed):
        asyncio.run(probes.once(probe, target, no_exec))
