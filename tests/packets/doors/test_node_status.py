"""What a node says of itself, asked of the real one: devices, programs and maps of a namespace of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.packets.doors.node import config_of

from podwire.agent import dumps
from podwire.agent.interface import DUMPS, WARNING
from podwire.agent.kernel import Kernel
from podwire.agent.node import Node
from podwire.agent.server import health, shapes
from podwire.agent.stages import Stages
from podwire.base.aio import Supervised, eventually
from podwire.base.errors import KernelError
from podwire.model.cluster import OWN
from podwire.net import messages, namespaces
from podwire.net.messages import Veth
from podwire.net.stack import Stack
from podwire.state.tables import DeviceRow, NodeRow, PolicyRow

pytestmark = pytest.mark.kernel
ME = NodeRow("n1", ("192.0.2.1",), ("10.0.1.0/24",), {}, True, ("10.0.1.254",))
WITHIN = 20.0


class Api:
    """An API that can be reached and is not asked for anything."""

    away = ""


@pytest.fixture
def stages(netns: str, pins: str, tmp_path: Path) -> Iterator[Callable[[], Stages]]:
    """Makes the stages of a node, as an agent does that starts there."""
    with Stack(netns) as stack:
        ends = Veth("eth0", bytes.fromhex("020000000001")), Veth("far", bytes.fromhex("020000000002"))
        stack.apply(messages.veth(*ends))
        stack.apply(
            messages.link_set(name="eth0", up=True),
            messages.link_set(name="far", up=True),
            messages.address(stack.existing("eth0").ifindex, "192.0.2.1/24"),
        )
    config = msgspec.structs.replace(
        config_of(pins), run_dir=str(tmp_path), routing_mode="tunnel", socket_lb=False
    )
    kernel = namespaces.run(netns, Kernel, config, ME)
    made: list[Stages] = []

    def make() -> Stages:
        client: Any = Api()
        made.append(Stages(config, client, ME, kernel))
        return made[-1]

    with closing(kernel):
        yield make
        for one in made:
            one.ring.close()
            one.writer.close()
        namespaces.run(netns, kernel.programs.remove)


def test_facts_are_those_of_the_kernel(stages: Callable[[], Stages], pins: str, netns: str) -> None:
    async def run() -> None:
        of = stages()
        node = Node(of)
        facts = node.facts()
        attached = of.kernel.programs.attached()
        assert facts.attach_mode == of.kernel.programs.attach_mode() in ("tcx", "tc")
        assert len(attached) == 4, "two on the device and two on the tunnel"
        assert not facts.socket_services
        assert facts.route_mtu == 1500 - 50 == node.mtu() - 50
        assert facts.maps["podwire_conntrack"] == of.maps["podwire_conntrack"].capacity == 1024
        assert facts.maps["podwire_ipcache"] == of.maps["podwire_ipcache"].capacity
        assert facts.ring_bytes == of.ring.statistics().size
        assert (facts.flows, facts.flows_seen, facts.unknown) == (0, 0, 0)
        assert {"core/v1::Pod", "cilium.io/v2::CiliumEndpoint"} <= set(facts.watched)
        # What the kernel tells of devices is said: of the node's own, and of a pod's.
        assert (facts.pod_device, facts.segments) == ("veth", (0, 0, 0, 0)), "nothing was told yet"
        with Stack(netns) as stack:
            link = stack.existing("eth0")
        of.tables.devices.put(DeviceRow(link.ifindex, "eth0", True, True, False, link.kind, link.segments))
        assert node.facts().segments == link.segments and link.segments[0] >= 65536
        # Taken off its hooks, a program is not said to be there.
        for name in [name for name in attached if name.startswith(("network", "overlay"))]:
            os.unlink(os.path.join(pins, "n1", "links", name))
        assert node.facts().attach_mode == "none"

    asyncio.run(run())


def test_status_tells_what_is_so_and_health_is_made_of_it(stages: Callable[[], Stages], netns: str) -> None:
    async def run() -> None:
        of = stages()
        node = Node(of)
        assert node.status()["kubernetes"][0] == WARNING, "nothing is known yet"
        assert "not all tables are known" in node.status()["datapath"][1]
        answer = health.healthz(node)
        assert {one["name"] for one in answer["controllers"]} >= {"write maps", "watch pods"}
        assert all(one["status"]["success-count"] == 0 for one in answer["controllers"])
        for table in of.tables:
            table.mark_all_ready()
        async with Supervised("test") as group:
            group.start("write maps", of.writer.run())
            await eventually(lambda: of.writer.synced, timeout=WITHIN, what="the maps to be written")
        assert node.status()["datapath"][0] == "Ok"
        written = {one["name"]: one["status"] for one in health.healthz(node)["controllers"]}["write maps"]
        assert written["success-count"] > 0 and written["failure-count"] == 0
        assert written["last-success-timestamp"] != health.NEVER
        assert shapes.metrics(node.metrics())

    asyncio.run(run())


def test_a_refused_policy_is_named_once_with_its_cause(stages: Callable[[], Stages]) -> None:
    async def run() -> None:
        node = Node(stages())
        node.tables.policies.put(
            PolicyRow("NetworkPolicy", "prod", "broken", "u", 1, (), "spec.ingress[0].from: must be a list")
        )
        state, told = node.status()["policy"]
        assert (state, told) == (WARNING, "1 not in force: NetworkPolicy prod/broken")
        (refused,) = health.healthz(node)["podwire"]["invalid-policies"]
        assert refused["error"] == "spec.ingress[0].from: must be a list"

    asyncio.run(run())


def test_maps_are_read_beside_the_loop(stages: Callable[[], Stages], monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        node = Node(stages())
        threads = []

        def noting(real: Any, *arguments: Any) -> Any:
            threads.append(threading.get_ident())
            yield from real(*arguments)

        for name, real in list(dumps.DUMPS.items()):
            monkeypatch.setitem(dumps.DUMPS, name, partial(noting, real))
            assert [rows async for rows in node.bpf_dump(name, {})] == []
        assert len(threads) == len(DUMPS) and threading.get_ident() not in threads

    asyncio.run(run())


def test_clashes_are_looked_for_when_nodes_change(stages: Callable[[], Stages]) -> None:
    async def run() -> None:
        of = stages()
        node = Node(of)
        for family in of.sources.families:
            family.synced = True
        assert node.status()["kubernetes"] == ("Ok", "all objects known")
        of.tables.nodes.put(NodeRow("n2", ("192.0.2.1",), ("10.0.2.0/24",), {}, False))
        assert "nodes n1 and n2 both have the address 192.0.2.1" in node.status()["kubernetes"][1]
        of.tables.nodes.delete((OWN, "n2"))
        assert node.status()["kubernetes"] == ("Ok", "all objects known")

    asyncio.run(run())


def test_what_the_kernel_refuses_is_told_by_the_component(stages: Callable[[], Stages]) -> None:
    async def run() -> None:
        of = stages()
        of.itself._failure = str(KernelError("load program x", 12))
        assert "load program x" in Node(of).status()["node"][1]

    asyncio.run(run())
