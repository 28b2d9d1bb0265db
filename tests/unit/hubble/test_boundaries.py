"""Whatever goes wrong with a record, a name, a request or a client ends that, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
from tests.unit.hubble.conftest import Make
from tests.unit.hubble.test_serve import call, serving, stream

from podwire.abi.dtypes import EVENT
from podwire.api import flow_pb2, observer_pb2
from podwire.base.aio import cancelling, eventually
from podwire.base.errors import KernelError
from podwire.hubble import cgroups as cgroups_module
from podwire.hubble import pipeline as pipeline_module
from podwire.hubble import rpc
from podwire.hubble.cgroups import Cgroups
from podwire.hubble.explain import explain_row
from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.hubble.query import Query, _Losses
from podwire.hubble.read import LossReason, Reader
from podwire.hubble.rpc import Address
from podwire.model.flow import ALL
from podwire.testing import flows

GET_FLOWS = "/observer.Observer/GetFlows"


def answers(pipeline: Pipeline, **fields: Any) -> list[Any]:
    async def main() -> list[Any]:
        request = observer_pb2.GetFlowsRequest(**fields)
        query = Query(request, pipeline.flows)
        return [observer_pb2.GetFlowsResponse.FromString(raw) async for raw in query.encoded()]

    return asyncio.run(main())


def complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Of podwire and of gRPC; not asyncio's about gRPC's reader of events when a test's loop is closed."""
    return [
        record
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] in ("podwire", "grpc")
    ]


# --- records ---------------------------------------------------------------------------------------


def test_any_bytes_are_a_record_that_can_be_stored_sent_and_explained(make: Make) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    pipeline, ring = make(capacity=1 << 12)
    garbage = np.frombuffer(random.Random(seed).randbytes(EVENT.itemsize * 2000), dtype=EVENT).copy()
    garbage["cpu"] &= 1
    ring.emit(garbage)
    assert pipeline.drain() == 2000
    statistics = pipeline.statistics()
    assert (statistics.stored, statistics.unreadable) == (2000, 0)
    assert len(list(Messages(pipeline.flows).responses(np.arange(2000)))) == 2000
    for row in range(0, 2000, 50):
        assert explain_row(pipeline.flows, row)["text"]


def fails_at(pipeline: Pipeline, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming a batch with such a record in it raises."""
    enrich = pipeline._enricher.enrich

    def failing(columns: Any) -> None:
        if (columns["destination_port"] == port).any():
            raise KeyError("a name that nobody expected")
        enrich(columns)

    monkeypatch.setattr(pipeline._enricher, "enrich", failing)


def test_a_record_that_cannot_be_stored_is_counted_and_takes_few_with_it(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, ring = make(capacity=1 << 12)
    fails_at(pipeline, 666, monkeypatch)
    batch = flows.joined([flows.event() for _ in range(1000)])
    batch["destination_port"][500] = 666
    ring.emit(batch)
    assert pipeline.drain() == 1000
    statistics = pipeline.statistics()
    assert (statistics.stored, statistics.unreadable) == (1000 - 64, 64)
    assert statistics.accounts.received == statistics.stored + statistics.unreadable
    assert statistics.accounts.emitted == statistics.stored + sum(statistics.lost_by.values())
    ring.emit(flows.event())
    pipeline.drain()
    assert pipeline.statistics().stored == 937
    lost = [each.lost_events for each in answers(pipeline, number=1) if each.HasField("lost_events")]
    assert [(each.source, each.num_events_lost) for each in lost] == [(flow_pb2.OBSERVER_EVENTS_QUEUE, 64)]
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


def test_the_tasks_of_the_pipeline_go_on(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through the running tasks: records that fail, and a kernel that does not say what was lost."""
    monkeypatch.setattr(pipeline_module, "LOSS_CHECK", 0.01)
    monkeypatch.setattr(pipeline_module, "NAMES_AFTER", 0.0)
    pipeline, ring = make()
    fails_at(pipeline, 666, monkeypatch)
    asked = 0

    def broken() -> list[tuple[int, ...]]:
        nonlocal asked
        asked += 1
        raise KernelError("cannot look up podwire_event_stats", 5)

    async def main() -> None:
        async with cancelling("hubble", pipeline.run()) as running:
            ring.emit(flows.event(destination_port=666))
            await eventually(lambda: pipeline.store.lost, timeout=10, what="the loss")
            pipeline.reader._reader = broken
            await eventually(lambda: asked > 3, timeout=10, what="it to be asked again")
            pipeline.reader._reader = ring.statistics
            ring.emit(flows.event())
            await eventually(lambda: len(pipeline.store) == 1, timeout=10, what="the next record")
            assert not running.done()

    asyncio.run(main())


def test_each_loss_has_a_reason(make: Make) -> None:
    """emitted = stored + lost(reason), also for what the kernel withheld from the ring."""
    pipeline, ring = make()
    withheld = [0, 0]

    def statistics() -> list[tuple[int, ...]]:
        return [(*pair, held) for pair, held in zip(ring.statistics(), withheld, strict=True)]

    pipeline.reader = Reader(ring, statistics)
    ring._capacity = 10
    ring.emit(flows.joined([flows.event()] * 25), cpu=1)
    withheld[1] = 6  # of the 15 that were lost
    pipeline.drain()
    said = pipeline.statistics()
    assert said.lost_by == {LossReason.RING_FULL: 9, LossReason.WITHHELD: 6, LossReason.UNREADABLE: 0}
    assert said.accounts.emitted == said.stored + sum(said.lost_by.values()) == 25
    assert said.accounts.reconciled
    assert pipeline.store.lost_by == said.lost_by
    lost = [each.lost_events for each in answers(pipeline, number=1) if each.HasField("lost_events")]
    source = flow_pb2.PERF_EVENT_RING_BUFFER
    assert [(each.source, each.num_events_lost, each.cpu.value) for each in lost] == [
        (source, 9, 1),
        (source, 6, 1),
    ]


def test_losses_are_told_by_their_sums_however_many_records_there_were(make: Make) -> None:
    pipeline, ring = make()
    ring._capacity = 0
    for _ in range(3000):  # more than the store keeps records of, and no flow between them
        ring.emit(flows.event())
        pipeline.check_losses()

    losses = _Losses(pipeline.flows, 0)
    kept = len(pipeline.store.losses)
    assert [each.lost_events.num_events_lost for each in losses.told()] == [kept]
    for _ in range(3000):
        ring.emit(flows.event())
        pipeline.check_losses()
    assert [each.lost_events.num_events_lost for each in losses.told()] == [3000]
    assert list(losses.told()) == []


# --- names -----------------------------------------------------------------------------------------


def test_names_that_are_missing_or_odd(make: Make) -> None:
    """Tables empty but for what is nasty: flows are stored, sent and explained all the same."""
    pipeline, ring = make()
    tables = pipeline.flows.tables
    for table in tables:
        for row in list(table):
            if table not in (tables.endpoints, tables.pods):
                table.delete(table._key(row))
    nasty = "a\x1b[31m\n\u202e" + "x" * 5000
    for row in list(tables.endpoints):
        tables.endpoints.put(
            msgspec.structs.replace(row, pod=nasty, labels=(nasty, "=", ":", "cidr:nonsense"))
        )
    ring.emit(flows.sample())
    assert pipeline.drain() == 12
    assert pipeline.statistics().unreadable == 0
    assert len(answers(pipeline, number=ALL)) == 12
    label = [flow_pb2.FlowFilter(source_label=["reserved:world", "a=b"], source_pod=["x/y"])]
    assert answers(pipeline, number=ALL, whitelist=label) == []
    for row in range(12):
        assert explain_row(pipeline.flows, row)["text"]


def test_the_tree_of_cgroups_is_read_beside_the_loop_and_only_for_what_is_new(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = tmp_path / "tree" / "kubepods" / "poduid_frontend"
    pod.mkdir(parents=True)
    pipeline, _ = make()
    known = Cgroups(str(tmp_path / "tree"), pipeline.flows.tables.endpoints)
    threads = []
    scan = cgroups_module.scan

    def scanning(root: str) -> Any:
        import threading

        threads.append(threading.current_thread() is threading.main_thread())
        return scan(root)

    monkeypatch.setattr(cgroups_module, "scan", scanning)
    monkeypatch.setattr(cgroups_module, "SCAN_EVERY", 0.0)
    here, nowhere = pod.stat().st_ino, (1 << 63) + 5

    async def main() -> None:
        for _ in range(3):
            await known.learn(np.array([0, here, nowhere, here], dtype="u8"))
        await known.learn(np.zeros(4, dtype="u8"))

    asyncio.run(main())
    assert threads == [False], "one reading, in a thread; what was not there is not looked for again"
    row = known.endpoint(here)
    assert row is not None and row.pod == "frontend"
    assert known.endpoint(nowhere) is None
    monkeypatch.setattr(cgroups_module, "MOST", 2)
    assert scan(str(tmp_path / "tree"))[1] == 1
    assert len(scan(str(tmp_path / "tree"))[0]) == 2


# --- requests --------------------------------------------------------------------------------------


def test_a_fault_in_one_answer_ends_that_answer(
    sampled: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    async def main() -> None:
        async with serving(sampled, Address(socket=str(tmp_path / "s"))) as channel:
            request = observer_pb2.GetFlowsRequest(number=5)
            with monkeypatch.context() as patched:
                patched.setattr(Messages, "encoded", broken)
                patched.setattr("podwire.hubble.serve.Server.status", broken)
                for answer in (
                    stream(channel, GET_FLOWS, request, observer_pb2.GetFlowsResponse).read(),
                    call(
                        channel,
                        "/observer.Observer/ServerStatus",
                        observer_pb2.ServerStatusRequest(),
                        observer_pb2.ServerStatusResponse,
                    ),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await answer
                    assert caught.value.code() == grpc.StatusCode.INTERNAL
                    assert "its log says where" in caught.value.details()
            answer = stream(channel, GET_FLOWS, request, observer_pb2.GetFlowsResponse)
            assert len([each async for each in answer]) == 5

    asyncio.run(main())
    faults = [record.getMessage() for record in complaints(caplog)]
    assert sorted(faults) == ["answering Server._get_flows failed", "answering Server._status failed"]


def test_a_request_that_is_too_large_and_bytes_that_are_none(sampled: Pipeline, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(sampled, Address(socket=str(tmp_path / "s"))) as channel:
            raw = channel.unary_stream(GET_FLOWS, lambda sent: sent, lambda got: got)
            for sent in (b"\x0a" * (rpc.REQUEST_BYTES + 1), b"\xff" * 100):
                with pytest.raises(grpc.aio.AioRpcError):
                    await raw(sent).read()
            answer = stream(
                channel, GET_FLOWS, observer_pb2.GetFlowsRequest(number=1), observer_pb2.GetFlowsResponse
            )
            assert len([each async for each in answer]) == 1

    asyncio.run(main())


@pytest.mark.parametrize("number", [1 << 31, 1 << 62, 1 << 63, ALL - 1, ALL])
def test_a_huge_number_is_all_there_is(sampled: Pipeline, number: int) -> None:
    for fields in ({}, {"first": True}):
        assert len(answers(sampled, number=number, **fields)) == 12


def test_a_client_that_reads_slowly_waits_for_itself_alone(make: Make, tmp_path: Path) -> None:
    """It is told what was overwritten meanwhile; another follower gets all."""
    pipeline, ring = make(capacity=1024)

    async def main() -> None:
        async with serving(pipeline, Address(socket=str(tmp_path / "s"))) as channel:
            request = observer_pb2.GetFlowsRequest(follow=True)
            # Without a small window the client's library would read ahead for it.
            options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 10)]
            lazy = grpc.aio.insecure_channel(f"unix:{tmp_path}/s", options)
            slow = stream(lazy, GET_FLOWS, request, observer_pb2.GetFlowsResponse)
            await slow.initial_metadata()
            fast = stream(channel, GET_FLOWS, request, observer_pb2.GetFlowsResponse)
            await fast.initial_metadata()
            got = 0
            for _ in range(10):
                ring.emit(flows.joined([flows.event()] * 1000))
                pipeline.drain()
                while got < pipeline.store.end:
                    got += (await fast.read()).HasField("flow")
            assert got == 10_000
            seen = missed = 0
            async with asyncio.timeout(30):
                while seen + missed < 10_000:
                    each = await slow.read()
                    seen += each.HasField("flow")
                    missed += each.lost_events.num_events_lost
            assert missed > 0 and seen > 0
            slow.cancel()
            fast.cancel()
            await lazy.close()

    asyncio.run(main())


def test_a_client_that_is_gone_is_no_fault(
    sampled: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that end their call at any moment, also while they are refused, leave nothing in the log."""
    wrong = [flow_pb2.FlowFilter(http_status_code=[".."])]

    async def main() -> None:
        async with serving(sampled, Address(socket=str(tmp_path / "s"))) as channel:
            for fields in ({"whitelist": wrong}, {"number": ALL}, {"follow": True}):
                for turns in range(60):
                    request = observer_pb2.GetFlowsRequest(**fields)
                    answer = stream(channel, GET_FLOWS, request, observer_pb2.GetFlowsResponse)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    answer.cancel()
            answer = stream(
                channel, GET_FLOWS, observer_pb2.GetFlowsRequest(number=1), observer_pb2.GetFlowsResponse
            )
            assert len([each async for each in answer]) == 1

    asyncio.run(main())
    assert not complaints(caplog), caplog.text


def test_a_client_that_goes_while_it_is_told_something(caplog: pytest.LogCaptureFixture) -> None:
    """gRPC raises where the answer cannot be sent any more: no fault, and nothing more is sent."""

    async def told_too_late(_: Any, context: Any) -> Any:
        raise grpc.aio.InternalError("Failed execute_batch")

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            async with rpc._boundary(told_too_late, None):
                await told_too_late(None, None)

    asyncio.run(main())
    assert not complaints(caplog)
