"""The stages as tasks of an agent: what happens at start, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from podwire.base.aio import cancelling, eventually
from podwire.identity.allocate import Allocator
from podwire.identity.ipcache import Ipcache
from podwire.identity.prefixes import Prefixes
from podwire.identity.select import Select
from podwire.model.rule import Direction
from podwire.policy.compute import Compute
from podwire.policy.parse import parse
from podwire.state.table import Watch
from podwire.state.tables import (
    ContainerPort,
    EndpointPolicyRow,
    PodRow,
    PolicyRow,
    RemoteEndpointRow,
    Tables,
)
from podwire.stores.identities import Known, MemoryIdentities
from podwire.testing.walk import Walk

SOURCES = ("local_addresses", "namespaces", "nodes", "pods", "slices", "policies", "remote_endpoints")


@asynccontextmanager
async def agent(tables: Tables, store: MemoryIdentities) -> AsyncIterator[None]:
    """The stages, running, in the order of the walk."""
    async with AsyncExitStack() as stack:
        for name, work in (
            ("allocate", Allocator(tables, Prefixes(tables, ipv4=True, ipv6=False)).run(store)),
            ("select", Select(tables).run()),
            ("ipcache", Ipcache(tables, tunnel=False, ipv4=True, ipv6=False).run()),
            ("compute", Compute(tables).run()),
        ):
            await stack.enter_async_context(cancelling(name, work))
        yield


def policy(name: str, **spec: Any) -> PolicyRow:
    body = {
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, **spec},
    }
    return PolicyRow("CiliumNetworkPolicy", "default", name, "", 1, parse(body))


def endpoint(tables: Tables, number: int, app: str) -> None:
    walk = Walk()
    tables.endpoints.put(walk.endpoint(number, app, {"app": app}, ipv4=f"10.0.1.{number}"))


async def turns(count: int = 50) -> None:
    """Let tasks do what they can."""
    for _ in range(count):
        await asyncio.sleep(0)


NAMED = {"toEndpoints": [{}], "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}


@pytest.mark.parametrize("named", [False, True])
def test_nothing_is_said_before_everything_is_known(named: bool) -> None:
    """Of other nodes' pods a policy needs only what their ports are called, and only where it names one."""

    async def scenario() -> None:
        tables = Tables()
        endpoint(tables, 1, "web")
        tables.endpoints.mark_all_ready()
        tables.policies.put(policy("a", ingress=[{}], **({"egress": [NAMED]} if named else {})))
        needed = SOURCES if named else SOURCES[:-1]
        async with agent(tables, MemoryIdentities()):
            for name in needed:
                await turns()
                assert not len(tables.endpoint_policies), f"before {name} is ready"
                assert not tables.endpoint_policies.ready and not tables.policy_entries.ready
                tables.named(name).mark_all_ready()
            await eventually(lambda: tables.endpoint_policies.ready, timeout=5, what="the policies")
            row = tables.endpoint_policies.get(1)
            assert row is not None and row.enforce_ingress and row.enforce_egress is named
            if not named:  # a pod of this node is known to be it before all is known of the others
                await eventually(
                    lambda: tables.ipcache.keys() == ["10.0.1.1/32"], timeout=5, what="its address"
                )
                assert not tables.ipcache.ready
                tables.remote_endpoints.mark_all_ready()
            for table in ("selections", "identities", "ipcache", "policy_peers", "policy_entries", "rules"):
                await eventually(lambda table=table: tables.named(table).ready, timeout=5, what=table)  # type: ignore[misc]

    asyncio.run(scenario())


def test_an_endpoint_is_never_without_the_rules_there_are() -> None:
    async def scenario() -> None:
        tables = Tables()
        tables.endpoints.mark_all_ready()
        seen: list[EndpointPolicyRow] = []
        put = tables.endpoint_policies.put
        tables.endpoint_policies.put = lambda row: seen.append(row) or put(row)  # type: ignore[func-returns-value,method-assign]
        for name in SOURCES:
            tables.named(name).mark_all_ready()
        tables.policies.put(policy("a", ingress=[{}]))
        async with agent(tables, MemoryIdentities()):
            endpoint(tables, 1, "web")
            await eventually(lambda: seen, timeout=5, what="a policy")
            for number in range(2, 6):  # rules and endpoints change at the same moment
                tables.policies.put(policy("a", ingress=[{}], egress=[{}] * number))
                endpoint(tables, number, "web")
                await turns()
            await eventually(lambda: len(tables.endpoint_policies) == 5, timeout=5, what="all policies")
        assert all(row.enforce_ingress and row.policy for row in seen)

    asyncio.run(scenario())


def test_an_address_is_published_when_policies_know_its_identity() -> None:
    async def scenario() -> None:
        tables = Tables()
        for name in ("endpoints", *SOURCES):
            tables.named(name).mark_all_ready()
        endpoint(tables, 1, "web")
        tables.policies.put(policy("a", egressDeny=[{"toEntities": ["world"]}]))
        async with agent(tables, MemoryIdentities()):
            await eventually(lambda: "10.0.1.1/32" in tables.ipcache, timeout=5, what="the endpoint")
            obeyed = tables.endpoint_policies.get(1)
            assert obeyed is not None
            with Watch(tables.ipcache) as watch:
                watch.take()
                tables.policies.put(policy("b", egress=[{"toCIDR": ["192.168.0.0/16"]}]))
                (batch,) = await watch.next()
                (change,) = batch.changes
                now = tables.endpoint_policies.get(1)
                assert change.new is not None and now is not None
                key = (obeyed.policy, Direction.EGRESS, change.new.identity)
                assert key in tables.policy_peers or now.policy != obeyed.policy

    asyncio.run(scenario())


def test_the_ipcache_is_ready_when_nothing_in_it_waits_for_policies() -> None:
    """Else a restarted agent would take addresses out of the kernel, and put them back a moment later."""
    walk = Walk()
    walk.endpoint(1, "web", {"app": "web"}, ipv4="10.0.1.1")
    prefixes, allocate, select, compute, ipcache = walk._stages
    for watch, step in (prefixes, allocate, select, ipcache):  # policies are late
        step(*watch.take())
    assert "10.0.1.1/32" not in walk.tables.ipcache and not walk.tables.ipcache.ready
    for watch, step in (compute, ipcache):
        step(*watch.take())
    assert "10.0.1.1/32" in walk.tables.ipcache and walk.tables.ipcache.ready


def test_named_ports_of_another_pod_change_what_an_egress_rule_means() -> None:
    walk = Walk()
    walk.endpoint(1, "web", {"app": "web"})
    walk.tables.policies.put(
        policy(
            "a",
            egress=[{"toEntities": ["all"], "toPorts": [{"ports": [{"port": "dns", "protocol": "UDP"}]}]}],
        )
    )

    def pod(*ports: ContainerPort) -> PodRow:
        return PodRow("default", "dns", "", "n2", ("10.0.2.1",), {}, "", False, "Running", ports)

    walk.allocator.apply(Known(5000, Walk.labels({"app": "dns"})))
    walk.tables.remote_endpoints.put(RemoteEndpointRow("default", "dns", 5000, ("10.0.2.1",), "172.18.0.2"))
    walk.settle()
    verdicts = []
    for ports in ((), (ContainerPort("dns", 53, 17),), (ContainerPort("dns", 5353, 17),), ()):
        walk.tables.pods.put(pod(*ports))
        walk.settle()
        verdicts.append([walk.verdict(1, Direction.EGRESS, 5000, 17, port)[0] for port in (53, 5353)])
    assert verdicts == [[0, 0], [1, 0], [0, 1], [0, 0]]
