"""Random records and random requests: nothing on the way up fails on what it is given.

Of a record only what the kernel itself writes (time, CPU, number) is kept sane; the rest is what packets
and future programs may say. A request is answered or refused by name, never an internal error.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor as Field

from podwire.abi.dtypes import EVENT
from podwire.api import observer_pb2
from podwire.base.config import AgentConfig
from podwire.base.errors import InvalidObject
from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.hubble.query import Query
from podwire.testing import flows

TEXTS = [
    "",
    "a",
    "prod/",
    "prod/backend",
    "/",
    "*",
    "10.0.0.1",
    "::/0",
    "1.2.3.4/33",
    "80",
    "-1",
    "99999999999",
]
TEXTS += [
    "a in (b",
    "!x",
    "k8s:app=backend",
    "a=b,c!=d",
    "(",
    "\x00",
    "\u202e",
    "é" * 300,
    "tcp",
    "5+",
    "n1",
    "a/b/c",
]
PATHS = [
    "IP",
    "IP.source",
    "l4.TCP.flags.SYN",
    "Summary",
    "source",
    "time",
    "nonsense",
    "",
    ".",
    "source.labels",
]


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("PODWIRE_SEED", random.randrange(1 << 32)))
    print(f"PODWIRE_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    ring = flows.MemoryRing()
    config = AgentConfig(
        node_name="n1", run_dir=str(tmp_path), hubble_flow_capacity=2048, cgroup=str(tmp_path)
    )
    yield Pipeline(ring, ring.statistics, flows.tables(), config, "n1")
    ring.close()


def test_random_records(pipeline: Pipeline, chance: random.Random) -> None:
    random_bytes = np.random.default_rng(chance.randrange(1 << 32))
    for batch in range(20):
        records = random_bytes.integers(0, 256, 500 * EVENT.itemsize, dtype="u1").view(EVENT).copy()
        if batch % 2:  # half of them nearly right
            right = np.repeat(flows.sample(), 42)[:500]
            for name in chance.sample(list(EVENT.names or ()), 30):
                records[name] = right[name]
        records["time"] = 1_000_000_000 + np.arange(500)
        records["cpu"], records["sequence"] = batch % 4, np.arange(500) + 1
        pipeline.take(records)
        rows = np.arange(pipeline.store.end - 500, pipeline.store.end)
        messages = Messages(pipeline.flows)
        # What is put together from parts that were kept is what is made message by message.
        for raw, response in zip(messages.encoded(rows), messages.responses(rows), strict=True):
            assert observer_pb2.GetFlowsResponse.FromString(raw) == response
        for row in chance.sample(rows.tolist(), 5):
            found = pipeline.explain_json(Messages(pipeline.flows).flow(row).uuid)
            assert found is not None and found["text"]


def test_random_requests(pipeline: Pipeline, chance: random.Random) -> None:
    pipeline.take(flows.sample())
    refused = answered = 0
    for _ in range(1000):
        request = observer_pb2.GetFlowsRequest()
        fill(request, chance, 0)
        request.follow = request.follow and chance.random() < 0.2
        try:
            asyncio.run(answer(Query(request, pipeline.flows), request.follow))
            answered += 1
        except InvalidObject as error:
            assert error.problem
            refused += 1
    assert answered > 100 and refused > 100


async def answer(query: Query, follow: bool) -> None:
    responses = query.encoded()
    if not follow:
        async for raw in responses:
            observer_pb2.GetFlowsResponse.FromString(raw)
    await responses.aclose()  # type: ignore[attr-defined]


def fill(message: Any, chance: random.Random, depth: int) -> None:
    fields = [field for field in message.DESCRIPTOR.fields if field.name != "extensions"]
    for field in chance.sample(fields, min(len(fields), chance.choice([0, 1, 1, 2, 3]))):
        if message.DESCRIPTOR.full_name == "google.protobuf.FieldMask":
            message.paths.extend(chance.choices(PATHS, k=2))
        elif field.message_type is not None:
            if depth < 4:
                part = getattr(message, field.name)
                part = part.add() if field.is_repeated else part
                if not field.is_repeated:
                    part.SetInParent()
                fill(part, chance, depth + 1)
        else:
            chosen = value(field, chance)
            if field.is_repeated:
                getattr(message, field.name).append(chosen)
            else:
                setattr(message, field.name, chosen)


def value(field: Any, chance: random.Random) -> Any:
    match field.cpp_type:
        case Field.CPPTYPE_STRING:
            return chance.choice(TEXTS)
        case Field.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case Field.CPPTYPE_UINT32:
            return chance.choice([0, 1, 1002, (1 << 32) - 1])
        case Field.CPPTYPE_UINT64:
            return chance.choice([0, 1, 5, (1 << 63), (1 << 64) - 1])
        case Field.CPPTYPE_INT64:
            return chance.choice([0, -(1 << 63), (1 << 63) - 1, 253402300799, -62135596800, 1_700_000_000])
        case _:  # int32 and enumerations
            return chance.choice([0, 1, 2, -1, 133, 999, -(1 << 31), (1 << 31) - 1])
