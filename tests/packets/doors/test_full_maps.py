"""Policies that do not fit into a map that may not grow: what is in force, and what is given up for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from tests.patience import within

from podwire.abi.enums import EndpointFlags
from podwire.base.aio import Backoff, Supervised, eventually
from podwire.base.config import AgentConfig
from podwire.datapath import programs as loading
from podwire.datapath.maps import Maps
from podwire.datapath.programs import Programs
from podwire.datapath.write import Writer
from podwire.model.rule import Direction, Origin
from podwire.state.tables import (
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    IdentityRow,
    PeerRow,
    ProgressRow,
    RuleRow,
    Tables,
)

pytestmark = pytest.mark.kernel
ROOM = 64
WEB = EndpointRow(
    1, "default", "web", "u", "c1", "/n", "lxc1", 4711, "02:00:00:00:00:01", "02:00:00:00:00:02",
    "10.0.1.5", "", ("k8s:app=web",), 1234, (), "ready",
)  # fmt: skip


@pytest.fixture
def programs(pins: str) -> Iterator[Programs]:
    config = AgentConfig(
        node_name="n1",
        bpf_dir=os.path.join(pins, "n1"),
        ct_max=1024,
        policy_map_max=ROOM,
        policy_peers_max=ROOM,
        ipcache_max=ROOM,
        lb_map_max=ROOM,
        map_growth_max=ROOM,
    )
    loaded = Programs.load(loading.plan(config, ("192.0.2.1",), tunnel_device=0, tunnel_mtu=0))
    yield loaded
    loaded.remove()


class Policies:
    """The tables as policy.compute writes them: one endpoint, one policy that it is to obey."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.tables.endpoints.put(WEB)
        self.tables.identities.put(IdentityRow(WEB.identity, WEB.labels, "cluster"))
        self.tables.progress.put(ProgressRow("policy.compute", self.tables.identities.revision, 0))

    def obey(self, policy: int, size: int) -> None:
        """`size` entries and one peer; the policy before it goes in the same moment."""
        tables = self.tables
        for old in list(tables.policy_entries):
            tables.policy_entries.delete(
                (old.policy, old.peer_class, old.direction, old.protocol, old.port, old.port_bits)
            )
        for peer in list(tables.policy_peers):
            tables.policy_peers.delete((peer.policy, peer.direction, peer.identity))
        tables.rules.put(
            RuleRow(
                policy, Direction.INGRESS, (Origin("CiliumNetworkPolicy", "default", f"p{policy}"),), "", True
            )
        )
        for port in range(size):
            tables.policy_entries.put(EntryRow(policy, 1, Direction.INGRESS, 6, port, 16, 1, 2, 0, policy))
        tables.policy_peers.put(PeerRow(policy, Direction.INGRESS, 99, 1))
        tables.endpoint_policies.put(EndpointPolicyRow(1, policy, True, False, policy))

    def failed(self) -> list[tuple[int, str]]:
        return [(row.policy, str(row.origins[0])) for row in self.tables.policy_failures]


def entries(maps: Maps, policy: int) -> int:
    return sum(key.policy == policy for key in maps["podwire_policy"])


def writer(policies: Policies, programs: Programs) -> Writer:
    return Writer(policies.tables, programs.maps, "n1", grow=programs.bigger, backoff=Backoff(0.01, 0.02))


def in_force(maps: Maps) -> tuple[int, int]:
    """(policy, flags) of the endpoint's row in the kernel."""
    row = maps["podwire_devices"].get(WEB.ifindex)
    return (row.policy, row.flags) if row is not None else (0, 0)


def test_a_policy_is_switched_whole_or_not_at_all(programs: Programs) -> None:
    """7 is in force. 8 fits nowhere: 7 stays. 9 fits, but not beside 7: it takes its place."""
    policies, maps = Policies(), programs.maps
    enforced = int(EndpointFlags.ENFORCE_INGRESS)

    async def work() -> None:
        one = writer(policies, programs)
        async with Supervised("test") as group:
            group.start("write", one.run())
            policies.obey(7, 40)
            for table in policies.tables:
                table.mark_all_ready()
            await asyncio.wait_for(one.wait_realized(1), 10)
            policies.obey(8, ROOM + 10)
            await eventually(policies.failed, timeout=within(10), what="the failure")
            assert policies.failed() == [(8, "default/p8")]
            assert in_force(maps) == (7, enforced)
            assert entries(maps, 7) == 40
            policies.obey(9, 40)
            await asyncio.wait_for(one.wait_realized(1), 10)
            assert in_force(maps) == (9, enforced)
            assert (entries(maps, 7), entries(maps, 8), entries(maps, 9)) == (0, 0, 40)
            await eventually(lambda: not policies.failed(), timeout=within(10), what="the end of the failure")
            assert not one.errors()

    asyncio.run(work())


def test_a_new_agent_keeps_what_an_earlier_one_enforced(programs: Programs) -> None:
    """What no table of it has any more, because the policy in its place does not fit, is not pruned."""
    first, second, maps = Policies(), Policies(), programs.maps

    async def run(policies: Policies, policy: int, size: int, check: str) -> None:
        one = writer(policies, programs)
        async with Supervised("test") as group:
            group.start("write", one.run())
            policies.obey(policy, size)
            for table in policies.tables:
                table.mark_all_ready()
            await eventually(lambda: one.synced, timeout=within(10), what="the writer")
            if check == "fits":
                await asyncio.wait_for(one.wait_realized(1), 10)
                return
            await eventually(policies.failed, timeout=within(10), what="the failure")
            assert in_force(maps)[0] == 7 and entries(maps, 7) == 40
            policies.obey(10, 5)
            await asyncio.wait_for(one.wait_realized(1), 10)
            await eventually(lambda: not entries(maps, 7), timeout=within(10), what="the end of policy 7")
            assert entries(maps, 10) == 5

    asyncio.run(run(first, 7, 40, "fits"))
    asyncio.run(run(second, 8, ROOM + 10, "does not"))
