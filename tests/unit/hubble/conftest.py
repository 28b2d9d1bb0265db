"""A pipeline on a ring in memory, with the small world of `podwire.testing.flows`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podwire.base.config import AgentConfig
from podwire.hubble.pipeline import Pipeline
from podwire.testing import flows

Make = Callable[..., tuple[Pipeline, flows.MemoryRing]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make(capacity=…, cgroup=…)` → a pipeline and its ring."""
    rings: list[flows.MemoryRing] = []

    def make(capacity: int = 1024, cgroup: str = "") -> tuple[Pipeline, flows.MemoryRing]:
        ring = flows.MemoryRing()
        rings.append(ring)
        config = AgentConfig(
            node_name="n1", run_dir=str(tmp_path), hubble_flow_capacity=capacity, cgroup=cgroup
        )
        return Pipeline(ring, ring.statistics, flows.tables(), config, "n1"), ring

    yield make
    for ring in rings:
        ring.close()


@pytest.fixture
def sampled(make: Make) -> Pipeline:
    """With the flows of `podwire.testing.flows.sample` stored."""
    pipeline, ring = make()
    ring.emit(flows.sample())
    pipeline.drain()
    return pipeline
