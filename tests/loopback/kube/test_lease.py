"""Leader election: one leads, another takes over when it gives up or goes silent."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from podwire.apiserver import ApiServer, ServerConfig
from podwire.base.aio import cancelling
from podwire.kube import Client
from podwire.kube.lease import Election, LeadershipLost


def with_clients(directory: Path, work: Any) -> None:
    async def main() -> None:
        server = ApiServer(ServerConfig(directory=directory))
        await server.start()
        try:
            async with (
                Client.from_kubeconfig(directory / "admin.kubeconfig") as one,
                Client.from_kubeconfig(directory / "admin.kubeconfig") as two,
            ):
                await asyncio.wait_for(work(server, one, two), 30)
        finally:
            await server.stop()

    asyncio.run(main())


def test_one_leads_and_the_next_takes_over(tmp_path: Path) -> None:
    async def work(server: ApiServer, one: Client, two: Client) -> None:
        led: list[str] = []
        first = Election(one, "work", "anna", retry=0.02, lasts=30)
        second = Election(two, "work", "ben", retry=0.02, lasts=30)

        async def wait_to_lead() -> None:
            async with second.leading():
                led.append("ben")

        async with AsyncExitStack() as leading:
            await leading.enter_async_context(first.leading())
            async with cancelling("ben", wait_to_lead()) as waiting:
                while second._seen[0] == "":
                    await asyncio.sleep(0.005)
                assert led == []
                lease = server.objects.find("leases.coordination.k8s.io", "kube-system", "work")
                assert lease is not None and lease["spec"]["holderIdentity"] == "anna"
                await leading.aclose()
                await waiting
        assert led == ["ben"]
        lease = server.objects.find("leases.coordination.k8s.io", "kube-system", "work")
        assert lease is not None and lease["spec"]["leaseTransitions"] == 1

    with_clients(tmp_path, work)


def test_a_silent_leader_is_replaced_and_stops(tmp_path: Path) -> None:
    async def work(server: ApiServer, one: Client, two: Client) -> None:
        first = Election(one, "work", "anna", retry=0.05, lasts=0.6)
        second = Election(two, "work", "ben", retry=0.05, lasts=30)
        taken = asyncio.Event()

        async def take_over() -> None:
            async with second.leading():
                taken.set()
                await asyncio.get_running_loop().create_future()

        async with cancelling("ben", take_over()) as ben:
            with pytest.raises(LeadershipLost):
                async with first.leading():
                    first._client = Client(one.access)  # its connection is gone from here on
                    first._client.access = type(one.access)("https://127.0.0.1:1")
                    await asyncio.get_running_loop().create_future()
            await taken.wait()
            assert not ben.done()

    with_clients(tmp_path, work)
