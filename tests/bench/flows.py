"""Events per second on the way up: `python tests/bench/flows.py [SECONDS]`.

One core; records in memory as the kernel leaves them, through the functions the agent runs: read
with accounts, decode, enrich, store. Then filters over a full store, and messages.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from podwire.api import flow_pb2, observer_pb2
from podwire.base import addresses
from podwire.base.config import AgentConfig
from podwire.hubble import filter as filters
from podwire.hubble.message import PRINTED, Messages
from podwire.hubble.pipeline import Pipeline
from podwire.testing import flows

BATCH = 8192


def varied(base: Any, seed: int, world: bool) -> Any:
    """`base` with ports (and, for `world`, sources outside) that are new in each record."""
    random = np.random.default_rng(seed)
    records = np.repeat(base, BATCH // len(base) + 1)[:BATCH]
    made = np.empty(BATCH, dtype=base.dtype)
    made[:] = records
    made["source_port"] = random.integers(1024, 65535, BATCH)
    made["time"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if world:
        outside = np.frombuffer(addresses.pack("203.0.113.0"), dtype="u1").copy()
        made["source"] = outside
        made["source"][:, 13:] = random.integers(0, 255, (BATCH, 3))
        made["source_identity"], made["source_endpoint"] = 2, 0
    return made


def pipeline() -> tuple[Pipeline, flows.MemoryRing]:
    ring = flows.MemoryRing()
    config = AgentConfig(node_name="n1", run_dir="/nonexistent")
    return Pipeline(ring, ring.statistics, flows.tables(), config, "n1"), ring


def events_per_second(batches: list[Any], seconds: float, names_change: bool) -> float:
    made, ring = pipeline()
    tables = made.flows.tables
    done, used = 0, 0.0
    while used < seconds:
        ring.emit(batches[done // BATCH % len(batches)])
        if names_change:  # a pod comes or goes between all batches: every name is looked up anew
            tables.pods.put(next(iter(tables.pods)).__class__(**changed(tables, done)))
        started = time.process_time()
        done += made.drain()
        used += time.process_time() - started
    made.statistics()
    accounts = made.statistics().accounts
    assert accounts.reconciled and accounts.waiting == 0
    return done / used


def changed(tables: Any, count: int) -> dict[str, Any]:
    row = next(iter(tables.pods))
    return {name: getattr(row, name) for name in row.__struct_fields__} | {"uid": str(count)}


def nanoseconds(work: Callable[[], int]) -> float:
    """CPU time of `work` for each of the things it says it did."""
    started = time.process_time()
    count = work()
    return (time.process_time() - started) / count * 1e9


def queries() -> list[tuple[str, float]]:
    made, ring = pipeline()
    batches = [varied(flows.sample(), seed, False) for seed in range(4)]
    while len(made.store) < made.store.capacity:
        for batch in batches:
            ring.emit(batch)
        made.drain()
    store = made.store

    def scan(**fields: Any) -> Callable[[], int]:
        test = filters.compile_lists([flow_pb2.FlowFilter(**fields)], [], made.flows)

        def work() -> int:
            for _, columns in store.chunks(store.first, store.end, newest_first=True):
                test(columns)
            return len(store)

        return work

    def build(paths: frozenset[str]) -> Callable[[], int]:
        request = observer_pb2.GetFlowsRequest()
        request.field_mask.paths.extend(paths)
        messages = Messages(made.flows, request.field_mask)

        def work() -> int:
            rows = np.arange(store.end - 8192, store.end)
            for at in range(0, len(rows), 256):
                for _ in messages.encoded(rows[at : at + 256]):
                    pass
            return len(rows)

        return work

    return [
        ("filter by verdict", nanoseconds(scan(verdict=[flow_pb2.DROPPED]))),
        ("filter by pod", nanoseconds(scan(source_pod=["prod/front"]))),
        ("filter by CIDR and port", nanoseconds(scan(source_ip=["10.0.0.0/8"], destination_port=["8080"]))),
        ("filter by label", nanoseconds(scan(destination_label=["app in (backend)"]))),
        ("message, whole", nanoseconds(build(frozenset()))),
        ("message, as hubble prints", nanoseconds(build(PRINTED))),
    ]


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    inside = [varied(flows.sample(), seed, False) for seed in range(8)]
    outside = [varied(flows.sample(), seed, True) for seed in range(8)]
    small = [batch[:100] for batch in inside]
    for name, batches, change in (
        ("pods, ports new in each event", inside, False),
        ("sources outside, all different", outside, False),
        ("pods, tables change between batches", inside, True),
    ):
        print(f"{name:40} {events_per_second(batches, seconds, change):12,.0f} events/s")
    made, ring = pipeline()
    started = time.process_time()
    for _ in range(200):
        ring.emit(small[0])
        made.drain()
    print(f"{'batch of 100 events':40} {(time.process_time() - started) / 200 * 1e6:12,.0f} µs")
    for name, cost in queries():
        print(f"{name:40} {cost:12,.1f} ns/flow")


if __name__ == "__main__":
    main()
