"""``podwire operator`` as processes: two replicas, one leads; when that one ends, the other goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.loopback.kube.api import serving
from tests.patience import within
from tests.ports import free_port

from podwire.apiserver import ApiServer
from podwire.base.aio import eventually

Object = dict[str, Any]
PATIENCE = within(40)


class Replica:
    """One operator process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self.process = name, process

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def operating(directory: Path, name: str, *options: str) -> AsyncIterator[Replica]:
    config = str(directory / "admin.kubeconfig")
    with (directory / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "podwire.cli", "operator", "--kubeconfig", config, "--identity", name),
            *("--lease-seconds", "2", "--pool", "10.1.0.0/16,24", *options),
            stdout=log,
            stderr=log,
        )
    try:
        yield Replica(name, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        print((directory / f"{name}.log").read_text())


class Cluster:
    """What is asked of the operators, and what they did."""

    def __init__(self, server: ApiServer) -> None:
        self.objects = server.objects
        self.writes: list[tuple[str, str]] = []
        server.store.listeners.append(
            lambda change: self.writes.append((f"{change.kind} {change.resource}", change.stored.name))
        )

    def lease(self) -> Object:
        found = self.objects.find("leases.coordination.k8s.io", "kube-system", "podwire-operator")
        return found["spec"] if found is not None else {}

    def holder(self) -> str:
        return str(self.lease().get("holderIdentity", ""))

    def ask(self, numbers: Iterable[int]) -> None:
        policies = self.objects.kind("ciliumnetworkpolicies.cilium.io")
        for number in numbers:
            self.objects.create(self.objects.kind("nodes"), "", {"metadata": {"name": f"n{number}"}})
            body = {
                "metadata": {"name": f"p{number}"},
                "spec": {"endpointSelector": {}, "ingress": [{}]},
            }
            self.objects.create(policies, "default", body)

    def done(self) -> bool:
        nodes = self.objects.all("nodes")
        policies = self.objects.all("ciliumnetworkpolicies.cilium.io")
        return all(one.get("spec", {}).get("podCIDRs") for one in nodes) and all(
            (one.get("status") or {}).get("conditions") for one in policies
        )

    async def until_done(self) -> None:
        await eventually(self.done, timeout=PATIENCE, what="all nodes and policies")

    def judge(self, count: int) -> None:
        """Each thing was done, and once."""
        for what, letter in (("nodes", "n"), ("ciliumnetworkpolicies.cilium.io", "p")):
            wrote = [name for kind, name in self.writes if kind == f"MODIFIED {what}"]
            assert sorted(wrote) == sorted(f"{letter}{number}" for number in range(count))
        given = [one["spec"]["podCIDRs"][0] for one in self.objects.all("nodes")]
        assert len(set(given)) == count


@pytest.mark.parametrize("end", ["killed", "stopped", "told to end"])
@pytest.mark.timeout(200)
def test_when_the_leader_ends_the_other_goes_on_and_nothing_is_done_twice(end: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as server, AsyncExitStack() as stack:
            cluster = Cluster(server)
            replicas = {
                name: await stack.enter_async_context(operating(tmp_path, name, "--metrics", "off"))
                for name in ("anna", "ben")
            }
            await eventually(cluster.holder, timeout=PATIENCE, what="a leader")
            cluster.ask(range(20))
            await cluster.until_done()
            first = replicas.pop(cluster.holder())
            (second,) = replicas.values()
            cluster.ask(range(20, 40))
            await eventually(lambda: cluster.objects.all("nodes")[15], timeout=PATIENCE, what="a beginning")
            number = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "told to end": signal.SIGTERM}[end]
            first.tell(number)
            cluster.ask(range(40, 60))
            await eventually(
                lambda: cluster.holder() == second.name, timeout=PATIENCE, what="the other leader"
            )
            await cluster.until_done()
            if end == "stopped":
                first.tell(signal.SIGCONT)  # it does not know yet that it is too late
                cluster.ask(range(60, 80))
                await cluster.until_done()
            elif end == "told to end":
                assert await asyncio.wait_for(first.process.wait(), PATIENCE) == 0
            assert (cluster.holder(), cluster.lease()["leaseTransitions"]) == (second.name, 1)
            cluster.judge(80 if end == "stopped" else 60)
            second.tell(signal.SIGTERM)
            assert await asyncio.wait_for(second.process.wait(), PATIENCE) == 0
            if end != "stopped":
                assert cluster.holder() == ""  # the lease is given back

    asyncio.run(main())


@pytest.mark.timeout(200)
def test_an_api_that_was_away_is_taken_up_again(tmp_path: Path) -> None:
    """For longer than the lease: the term ends, and another one begins where the first ended."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            async with serving(tmp_path) as server:
                port = int(server.url.rpartition(":")[2])
                metrics = f"127.0.0.1:{free_port()}"
                await stack.enter_async_context(operating(tmp_path, "anna", "--metrics", metrics))
                session = await stack.enter_async_context(aiohttp.ClientSession())
                cluster = Cluster(server)
                cluster.ask(range(10))
                await cluster.until_done()
                cluster.judge(10)

            async def leads() -> float:
                return (await samples(session, f"http://{metrics}")).get("podwire_operator_leader", -1)

            async def stopped() -> bool:
                return await leads() == 0

            await eventually(stopped, timeout=PATIENCE, what="the end of the term")
            async with serving(tmp_path, port) as server:
                again = Cluster(server)
                again.ask(range(10, 20))
                await again.until_done()
                assert await leads() == 1
                again.writes += cluster.writes
                again.judge(20)
                await stack.aclose()  # the operator before the server: it would wait for it

    asyncio.run(main())


async def samples(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    try:
        async with session.get(f"{url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    except aiohttp.ClientError:
        return {}
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_metrics_tell_who_leads_and_how_it_goes(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        address = f"127.0.0.1:{port}"
        async with (
            serving(tmp_path) as server,
            operating(tmp_path, "anna", "--metrics", address),
            aiohttp.ClientSession() as session,
        ):
            cluster = Cluster(server)
            cluster.ask(range(5))
            await cluster.until_done()
            told: dict[str, float] = {}

            given = 'podwire_operator_reconciles_total{controller="pod-cidrs",outcome="done"}'

            async def counted() -> bool:
                told.update(await samples(session, f"http://{address}"))
                return told.get(given, 0) >= 5

            await eventually(counted, timeout=PATIENCE, what="the metrics")
            assert told["podwire_operator_leader"] == 1
            assert told['podwire_operator_objects{resource="nodes"}'] == 5
            assert told['podwire_operator_controller_synced{controller="policy-conditions"}'] == 1
            async with session.get(f"http://{address}/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok")

    asyncio.run(main())
