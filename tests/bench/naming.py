"""Names of flows while tables change: `python tests/bench/naming.py`.

30,000 services × 10 endpoints, and an endpoint more now and then, under 100,000 flows a second; pods that
come and go, 20 a second. Steps are what the agent does between two awaits, in CPU time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from flows import pipeline, varied

from podwire.base import addresses
from podwire.hubble.pipeline import Pipeline
from podwire.state.tables import BackendRow, FrontendRow, PodRow, Tables
from podwire.testing import flows

SERVICES, EACH = 30_000, 10
# Flows of 20 ms, the pace of the pipeline, at 100,000 a second.
BATCH = 2_000
END = object()


def address(first: int, number: int) -> str:
    return f"10.{first + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def fill(tables: Tables) -> None:
    for service in range(SERVICES):
        ids = tuple(range(100 + service * EACH, 100 + (service + 1) * EACH))
        for number in ids:
            tables.backends.put(BackendRow(number, address(16, number), 8080, flows.TCP, "active"))
        tables.frontends.put(
            FrontendRow(
                address(96, service), 80, flows.TCP, "prod", f"s{service}", "", "ClusterIP", 1, 1, ids
            )
        )


class Steps:
    """CPU time of each step, in ms."""

    def __init__(self) -> None:
        self.took: list[float] = []

    def take(self, step: Callable[[], bool]) -> bool:
        started = time.thread_time()
        more = step()
        self.took.append((time.thread_time() - started) * 1e3)
        return more


def start(made: Pipeline) -> None:
    """What the agent's start costs, step by step."""
    services, steps = made.services, Steps()
    while steps.take(services.step):
        pass
    show("services: start, in all", sum(steps.took), "ms")
    show("services: start, longest step", max(steps.took), "ms")


def endpoint_changes(made: Pipeline, ring: flows.MemoryRing) -> None:
    """One endpoint more, then a batch of flows; until a flow to it has the name."""
    tables, right, steps = made.flows.tables, [], Steps()
    batch = varied(flows.sample(), 1, False)[:BATCH]
    chance = np.random.default_rng(1)
    numbers = chance.integers(100, 100 + SERVICES * EACH, BATCH)
    batch["destination"] = np.frombuffer(
        b"".join(addresses.pack(address(16, int(number))) for number in numbers), dtype="u1"
    ).reshape(-1, 16)
    for turn in range(200):
        service, number = int(chance.integers(SERVICES)), 1_000_000 + turn
        old = tables.frontends.get((address(96, service), 80, flows.TCP))
        assert old is not None
        fields = {name: getattr(old, name) for name in old.__struct_fields__}
        tables.backends.put(BackendRow(number, address(200, turn), 8080, flows.TCP, "active"))
        tables.frontends.put(FrontendRow(**(fields | {"backends": (*old.backends, number)})))
        new = flows.event(destination=address(200, turn), destination_port=8080)
        started = time.thread_time()
        while True:
            ring.emit(flows.joined([new]))
            ring.emit(batch)
            while steps.take(made.services.step):
                pass
            made.take(ring.read())
            last = made.store.pick(np.array([made.store.end - 1]), ("destination_service",))
            named = made.flows.value(last["destination_service"][0])
            parts = made.take_in_parts(ring.read())
            while steps.take(lambda parts=parts: next(parts, END) is None):  # type: ignore[misc]
                pass
            if named is not None and named.name == f"s{service}":
                break
        right.append((time.thread_time() - started) * 1e3)
    show("services: one endpoint changed, name right, longest", max(right), "ms")
    show("services: longest step under flows", max(steps.took), "ms")


def pods_change(made: Pipeline, ring: flows.MemoryRing) -> None:
    """20 pod changes and 100,000 flows a second, of 4,000 pods."""
    tables = made.flows.tables
    for number in range(4000):
        tables.pods.put(pod(number, 0))
    batch = varied(flows.sample(), 2, False)[:BATCH]
    known = np.random.default_rng(2).integers(0, 4000, BATCH)
    batch["source"] = np.frombuffer(
        b"".join(addresses.pack(address(150, int(number))) for number in known), dtype="u1"
    ).reshape(-1, 16)
    batch["source_endpoint"], batch["source_identity"] = 0, 1001
    spent, done = 0.0, 0
    for turn in range(500):
        if turn % 3 == 0:
            tables.pods.put(pod(turn % 4000, turn))
        ring.emit(batch)
        records = ring.read()
        started = time.thread_time()
        made.take(records)
        if turn > 20:
            spent += time.thread_time() - started
            done += len(records)
    show("names: 20 pods change a second", done / spent, "events/s")


def pod(number: int, turn: int) -> PodRow:
    return PodRow(
        namespace="prod",
        name=f"pod-{number}",
        uid=f"{number}-{turn}",
        node="n2",
        addresses=(address(150, number),),
        labels={},
        service_account="default",
        host_network=False,
        phase="Running",
        ports=(),
        workload_kind="",
        workload_name="",
    )


def show(name: str, value: float, unit: str) -> None:
    print(f"{name:55} {value:12,.1f} {unit}")


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    made, ring = pipeline()
    fill(made.flows.tables)
    start(made)
    endpoint_changes(made, ring)
    pods_change(made, ring)


if __name__ == "__main__":
    main()
