"""What one change costs a node with very many of everything, and how long it holds the event loop.

Three shapes in which work is easily that of all there is: 200 different selectors over 20,000 identities,
10,000 policies of which one that selects every endpoint changes, 100 policies with 10,000 peers each. The
stages are the shipped ones and run as an agent runs them, as tasks beside each other; a step is the longest
time in which the loop did not come round to a callback that is always due. All times are of the processor:
what else the machine does does not count.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from measure import Row

from podwire.base.aio import Supervised
from podwire.datapath.mirror import Target
from podwire.datapath.write import Writer
from podwire.model.labels import NAMESPACE
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import EVERYTHING, Operator, Requirement, Selector, equals
from podwire.state.tables import IdentityRow, PolicyRow
from podwire.testing.walk import Walk

SELECTORS, IDENTITIES = 200, 20_000
POLICIES, ENDPOINTS = 10_000, 200
PEER_POLICIES, PEERS = 100, 10_000
FIRST = 1000


def rows(*, quick: bool) -> list[Row]:
    """All three shapes; a quick run has a tenth of each."""
    less = 10 if quick else 1
    return [
        *asyncio.run(selections(SELECTORS // less, IDENTITIES // less, 5 if quick else 31)),
        *asyncio.run(policies(POLICIES // less, ENDPOINTS // less)),
        *asyncio.run(peers(PEER_POLICIES // less, PEERS // less)),
    ]


@dataclass
class Loop:
    """Measures the event loop from inside, as one that is always ready to run."""

    longest: float = 0.0
    stopped: bool = field(default=False, repr=False)

    async def run(self) -> None:
        last = time.process_time()
        while not self.stopped:
            await asyncio.sleep(0)
            now = time.process_time()
            if now - last > self.longest:
                self.longest = now - last
            last = time.process_time()


@dataclass(frozen=True)
class Cost:
    """Of one change until all stages are at rest: its time and its longest step, ms."""

    whole: float
    step: float


async def cost(walk: Walk, change: Callable[[], object]) -> Cost:
    """Make a change and wait until the stages that follow it have nothing to do."""
    loop = Loop()
    async with Supervised("measured") as group:
        watching = group.once("watch the loop", loop.run())
        await asyncio.sleep(0)
        loop.longest = 0.0
        begin = time.process_time()
        change()
        await at_rest(walk)
        took = time.process_time() - begin
        loop.stopped = True
        await watching
    return Cost(took * 1000, loop.longest * 1000)


async def at_rest(walk: Walk) -> None:
    """Until policies have taken in all that the tables say."""
    tables = walk.tables
    while True:
        progress = tables.progress.get("policy.compute")
        if (
            progress is not None
            and progress.identities >= tables.identities.revision
            and progress.policies >= tables.policies.revision
        ):
            return
        await asyncio.sleep(0)


async def running(walk: Walk, work: Callable[[], Awaitable[list[Row]]]) -> list[Row]:
    """`work` beside the stages that make selections and policies; only they read the tables."""
    walk.close()
    async with Supervised("stages") as group:
        group.start("select identities", walk.select.run())
        group.start("resolve policies", walk.compute.run())
        walk.tables.identities.mark_all_ready()
        await at_rest(walk)
        gc.collect()
        gc.freeze()  # what was made to prepare is not looked through while a change is measured
        try:
            return await work()
        finally:
            gc.unfreeze()


# --- selections


async def selections(selectors: int, identities: int, rounds: int) -> list[Row]:
    """One endpoint obeys as many clauses as there are selectors; each selects nine in ten identities."""
    walk = Walk()
    walk.endpoint(1, "subject", {"app": "subject"})
    walk.settle()
    chance = random.Random(1)
    for number in range(identities):
        walk.tables.identities.put(some_identity(FIRST + number, chance))
    clauses = tuple(
        Clause(
            Direction.INGRESS, Effect.ALLOW, number, (overlapping(number),), None, f"spec.ingress[{number}]"
        )
        for number in range(selectors)
    )
    origin, subject = Origin("CiliumNetworkPolicy", "default", "wide"), equals("k8s", "app", "subject")
    rule = Rule(origin, 0, Selector((subject,)), clauses, True, False)
    name = f"select {selectors} × {identities // 1000}k"

    async def measured() -> list[Row]:
        tables = walk.tables
        start = await cost(walk, lambda: tables.policies.put(policy_row("wide", rule)))
        added, removed = [], []
        for number in range(rounds):
            row = some_identity(FIRST + identities + number, chance)
            added.append(await cost(walk, lambda row=row: tables.identities.put(row)))  # type: ignore[misc]
            removed.append(await cost(walk, lambda row=row: tables.identities.delete(row.number)))  # type: ignore[misc]
        return [
            Row("changes", name, "start", start.whole / 1000, "s"),
            Row("changes", name, "start, longest step", start.step, "ms"),
            Row("changes", name, "identity added", median(added), "ms"),
            Row("changes", name, "identity removed", median(removed), "ms"),
        ]

    return await running(walk, measured)


def overlapping(number: int) -> Selector:
    """One of a kind, and it selects what most others do."""
    others = tuple(sorted(f"g{one}" for one in range(20) if one not in (number % 20, number // 20 % 20)))
    return Selector(
        tuple(
            sorted(
                (
                    Requirement("k8s", "group", Operator.IN, others),
                    Requirement("k8s", "tier", Operator.NOT_IN, (f"t{number}",)),
                    equals("k8s", NAMESPACE, "default"),
                )
            )
        )
    )


def some_identity(number: int, chance: random.Random) -> IdentityRow:
    labels = (
        f"k8s:app=a{number}",
        f"k8s:group=g{chance.randrange(20)}",
        f"k8s:{NAMESPACE}=default",
        f"k8s:tier=t{chance.randrange(1000)}",
    )
    return IdentityRow(number, tuple(sorted(labels)), "cluster")


# --- policies


async def policies(count: int, endpoints: int) -> list[Row]:
    """Each endpoint is selected by its part of all policies, and by one that selects every endpoint."""
    walk = Walk()
    for number in range(1, endpoints + 1):
        walk.endpoint(number, f"pod-{number}", {"app": f"a{number}"})
    walk.settle()
    for number in range(count):
        subject = Selector((equals("k8s", "app", f"a{number % endpoints + 1}"),))
        walk.tables.policies.put(
            policy_row(f"p{number}", one_clause(f"p{number}", subject, 1024 + number % 5000))
        )

    async def measured() -> list[Row]:
        tables = walk.tables
        costs = []
        for number in range(5):
            every = one_clause("every", EVERYTHING, 80 + number)
            costs.append(
                await cost(walk, lambda every=every: tables.policies.put(policy_row("every", every)))
            )  # type: ignore[misc]
        name = f"policy {count // 1000}k × {endpoints} endpoints"
        return [
            Row("changes", name, "one changes", median(costs), "ms"),
            Row("changes", name, "one changes, longest step", max(one.step for one in costs), "ms"),
        ]

    return await running(walk, measured)


def one_clause(name: str, subject: Selector, port: int) -> Rule:
    peer = Selector((equals("k8s", "role", name),))
    clause = Clause(Direction.INGRESS, Effect.ALLOW, 0, (peer,), (Ports(6, port, port),), "spec.ingress[0]")
    return Rule(Origin("CiliumNetworkPolicy", "default", name), 0, subject, (clause,), True, False)


def policy_row(name: str, rule: Rule) -> PolicyRow:
    return PolicyRow("CiliumNetworkPolicy", "default", name, name, 1, (rule,))


def median(costs: list[Cost]) -> float:
    return statistics.median(one.whole for one in costs)


# --- peers


class Room(Target):
    """A map of the kernel that keeps nothing: its memory is the kernel's own and not Python's."""

    capacity = 1 << 30

    def items(self) -> list[tuple[bytes, bytes]]:
        return []

    def get(self, key: bytes) -> bytes | None:
        return None

    def put(self, key: bytes, value: bytes) -> None:
        pass

    def put_many(self, entries: Any) -> int:
        return sum(1 for _ in entries)

    def delete_many(self, keys: Any) -> int:
        return len(keys)

    def close(self) -> None:
        pass


class Rooms:
    def target(self, name: str) -> Target:
        return Room()


async def peers(count: int, identities: int) -> list[Row]:
    """What Python keeps of each peer when it is in the kernel: tables, the policies in force, the writer."""
    tracemalloc.start()
    try:
        await held(count, identities, "some")  # what is cached for ever is of neither
        without = await held(count, identities, "some")
        many = await held(count, identities, "all")
    finally:
        tracemalloc.stop()
    name = f"peers {count} × {identities // 1000}k"
    return [Row("changes", name, "python", (many - without) / (count * identities), "B")]


async def held(count: int, identities: int, group: str) -> int:
    """Bytes that are allocated when policies of this many peers are written, and everything rests."""
    before, _ = tracemalloc.get_traced_memory()
    walk = Walk()
    for number in range(identities):
        labels = ("k8s:group=all", f"k8s:group-of={number}") if number else ("k8s:group=some",)
        walk.tables.identities.put(IdentityRow(FIRST + number, labels, "cluster"))
    peer = Selector((equals("k8s", "group", group),))
    for number in range(1, count + 1):
        walk.endpoint(number, f"pod-{number}", {"app": f"a{number}"})
        subject = Selector((equals("k8s", "app", f"a{number}"),))
        clause = Clause(Direction.INGRESS, Effect.ALLOW, 0, (peer,), None, "spec.ingress[0]")
        origin = Origin("CiliumNetworkPolicy", "default", f"p{number}")
        walk.tables.policies.put(policy_row(f"p{number}", Rule(origin, 0, subject, (clause,), True, False)))
    walk.settle()
    for table in walk.tables:
        table.mark_all_ready()
    writer = Writer(walk.tables, Rooms(), "n1")
    async with Supervised("writer") as group_of_tasks:
        group_of_tasks.start("write maps", writer.run())
        while not writer.synced:
            await writer.round()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    return after - before


if __name__ == "__main__":
    for row in rows(quick=False):
        print(f"{row.key}: {row.value:.4g} {row.unit}", flush=True)
