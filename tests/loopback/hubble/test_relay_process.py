"""What else a relay is asked, and a relay that is a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from tests.loopback.hubble.conftest import Agent, Asked, relaying
from tests.patience import within

from podwire.api import observer_pb2
from podwire.base.aio import eventually

COMMAND = [sys.executable, "-m", "podwire.hubble.relay"]


def test_namespaces_are_those_of_all_nodes_once(agents: list[Agent], tmp_path: Path) -> None:
    now = time.time()  # those of the last hour are told
    agents[0].see(now - 2, now - 1)
    agents[1].see(now - 3)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for agent in agents[:2]:  # the third is not there
                await stack.enter_async_context(agent.serving())
            asked = await stack.enter_async_context(relaying([each.peer for each in agents], tmp_path))
            request, response = observer_pb2.GetNamespacesRequest(), observer_pb2.GetNamespacesResponse
            own = agents[0].pipeline.flows.tables.pods
            told = [
                each.namespace for each in (await asked.ask("GetNamespaces", request, response)).namespaces
            ]
            assert told == sorted(set(told)) and set(told) <= {row.namespace for row in own} and told

    asyncio.run(main())


def test_what_contradicts_itself_is_refused(agents: list[Agent], tmp_path: Path) -> None:
    async def main() -> None:
        async with relaying([agents[0].peer], tmp_path) as asked:
            with pytest.raises(
                grpc.aio.AioRpcError, match="first: cannot be combined with follow"
            ) as refused:
                await asked.all(first=True, follow=True, number=1)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(main())


def test_a_relay_of_its_own_answers_for_its_peers(agents: list[Agent], tmp_path: Path) -> None:
    agents[0].see(1, 2)
    agents[1].see(1.5)
    place = tmp_path / "own.sock"
    peers = [f"{agent.peer.name}={agent.peer.target}" for agent in agents]

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for agent in agents:
                await stack.enter_async_context(agent.serving())
            process = stack.enter_context(subprocess.Popen([*COMMAND, "--socket", str(place), *peers]))
            stack.callback(process.terminate)
            await eventually(place.exists, timeout=within(20), what="the relay's socket")
            async with grpc.aio.insecure_channel(f"unix://{place}") as channel:
                found, statuses = await Asked(None, channel).all(number=10)  # type: ignore[arg-type]
            assert found == [(1, "n1"), (1.5, "n2"), (2, "n1")]
            assert statuses == [("CONNECTED", ["n1", "n2", "n3"])]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--socket", "x", "n1"], "a peer is NAME=TARGET"),
        (["--socket", "x", "=unix:///y"], "a peer is NAME=TARGET"),
        ([], "--socket"),
        (["--socket", f"{__file__}/relay.sock"], "podwire-relay: "),
    ],
)
def test_a_relay_that_cannot_run_says_why(words: list[str], said: str) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=within(60))
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr, done.stderr
