"""What travels is put together from parts that were kept; it is what making each message gives."""

from __future__ import annotations

import random

import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from podwire.abi.dtypes import EVENT
from podwire.api import flow_pb2, observer_pb2
from podwire.hubble import wire
from podwire.hubble.message import PRINTED, Messages
from podwire.hubble.pipeline import Pipeline
from podwire.testing import flows

DEEP = ("source.identity", "source.labels", "l4.TCP.flags", "l4.UDP", "time.seconds", "IP.source")
FIELDS = [field.name for field in flow_pb2.Flow.DESCRIPTOR.fields]


def records(chance: random.Random, count: int) -> flows.Records:
    """Random bytes in some members of records that are otherwise right, at random times."""
    noise = np.random.default_rng(chance.randrange(1 << 32))
    made = noise.integers(0, 256, count * EVENT.itemsize, dtype="u1").view(EVENT).copy()
    right = np.repeat(flows.sample(), count // len(flows.sample()) + 1)[:count]
    for name in chance.sample(list(EVENT.names or ()), chance.randrange(len(EVENT.names or ()) + 1)):
        made[name] = right[name]
    made["time"] = noise.choice([0, 1, 10**6, 10**9, 10**9 + 5, 3 * 10**8, 10**18], count)
    made["cpu"] = noise.integers(0, 5000, count)
    return made


def differences(pipeline: Pipeline, mask: FieldMask | None) -> list[str]:
    """Rows whose bytes are another message than the one made from the row."""
    rows = np.arange(pipeline.store.first, pipeline.store.end)
    messages = Messages(pipeline.flows, mask)
    return [
        f"{made}\nis not\n{right}"
        for raw, right in zip(messages.encoded(rows), messages.responses(rows), strict=True)
        if (made := observer_pb2.GetFlowsResponse.FromString(raw)) != right
    ]


@pytest.mark.parametrize("number", range(8))
def test_bytes_are_those_of_the_message(number: int, make) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    pipeline, _ = make(capacity=1024)
    masks = [None, FieldMask(paths=sorted(PRINTED))]
    masks += [FieldMask(paths=chance.sample([*FIELDS, *DEEP], chance.randrange(1, 9))) for _ in range(4)]
    for _ in range(4):
        pipeline.take(records(chance, 240))
        for mask in masks:
            assert not differences(pipeline, mask)


def test_kept_parts_do_not_outlive_what_their_numbers_mean(make) -> None:
    """The names are swept, and the numbers of old ones mean others."""
    pipeline, ring = make()
    ring.emit(flows.sample())
    pipeline.drain()
    assert not differences(pipeline, None)
    names = pipeline.flows.names
    for number, value in enumerate(names.values):
        if value is not None and hasattr(value, "pod"):
            names.values[number] = type(value)(pod=f"other-{number}")
    names.sweeps += 1
    assert not differences(pipeline, None)


def test_what_clients_choose_does_not_grow_what_is_kept(make, monkeypatch) -> None:
    monkeypatch.setattr(wire, "MOST_KEPT", 8)
    pipeline, ring = make()
    ring.emit(flows.sample())
    pipeline.drain()
    for field in FIELDS * 2:
        assert not differences(pipeline, FieldMask(paths=[field]))
    assert len(pipeline.flows.kept) <= wire.MOST_GROUPS
