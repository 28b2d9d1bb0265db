"""The kernel's ring full and running over: emitted = stored + lost, with the shipped programs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from podwire.abi.enums import DropReason, EndpointFlags
from podwire.base.config import AgentConfig
from podwire.bpf.object import SkbContext
from podwire.datapath import objects
from podwire.hubble.pipeline import Pipeline
from podwire.net import namespaces
from podwire.state.tables import Tables
from podwire.testing.world import Pod, World

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[3]


@pytest.fixture
def world() -> Iterator[World]:
    with World(Path(objects.directory())) as world:
        yield world


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """Numbers are per CPU: what one lost at its end shows only by its own next event."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def pipeline(world: World, tmp_path: Path) -> Pipeline:
    config = AgentConfig(node_name="n1", run_dir=str(tmp_path), hubble_flow_capacity=1 << 16)
    return Pipeline(world.ring, lambda: stats(world), Tables(), config, "n1")


def stats(world: World) -> list[tuple[int, int]]:
    return [(each.emitted, each.lost) for each in world.statistics.per_cpu(0) or ()]


def denied(world: World, client: Pod, server: Pod, repeat: int) -> None:
    """`repeat` packets that default deny drops: each tells its verdict and its drop."""
    packet = Ether(src=client.mac.hex(":"), dst=client.host_mac.hex(":"))
    packet /= IP(src=client.ipv4, dst=server.ipv4) / TCP(sport=4000, dport=80, flags="S")
    context = SkbContext(ifindex=client.device)
    run = world.programs["podwire_from_pod"].test_run
    namespaces.run(world.namespace, run, bytes(packet), context, repeat)


def test_emitted_is_stored_plus_lost_when_the_ring_runs_over(world: World, pipeline: Pipeline) -> None:
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=7, flags=EndpointFlags.ENFORCE_INGRESS)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(8):
        denied(world, client, server, chance.choice([10, 1000, 40_000]))
        if chance.random() < 0.5:
            pipeline.drain()
    denied(world, client, server, 40_000)
    pipeline.drain()

    counted = pipeline.statistics()
    accounts = counted.accounts
    assert accounts.waiting == 0
    assert accounts.lost > 0
    assert accounts.emitted == accounts.received + accounts.lost
    assert accounts.received == counted.stored + counted.overwritten
    assert pipeline.store.lost == accounts.lost == sum(lost for _, lost in stats(world))

    # One more that gets through shows by its number how many were lost before it.
    denied(world, client, server, 1)
    pipeline.drain()
    accounts = pipeline.statistics().accounts
    assert accounts.gap == accounts.lost
    last = next(iter(pipeline.store.chunks(pipeline.store.end - 1, pipeline.store.end)))[1]
    assert last["drop_reason"].tolist() == [DropReason.POLICY_DENIED]
