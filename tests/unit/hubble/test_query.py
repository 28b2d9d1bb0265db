"""GetFlows: which flows, how many, in which order, and what is told of losses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podwire.api import flow_pb2, observer_pb2
from podwire.base.aio import cancelling
from podwire.base.errors import InvalidObject
from podwire.hubble import message
from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.hubble.query import Query
from podwire.hubble.read import Loss
from podwire.model.flow import ALL
from podwire.testing import flows

SECOND = 1_000_000_000


def request(pipeline: Pipeline, since: int | None = None, until: int | None = None, **fields: Any) -> Any:
    """A GetFlowsRequest; times are row numbers."""
    made = observer_pb2.GetFlowsRequest(**fields)
    for name, row in (("since", since), ("until", until)):
        if row is not None:
            getattr(made, name).CopyFrom(Messages(pipeline.flows).flow(row).time)
    return made


def answer(pipeline: Pipeline, wanted: Any) -> list[Any]:
    async def main() -> list[Any]:
        query = Query(wanted, pipeline.flows)
        return [observer_pb2.GetFlowsResponse.FromString(raw) async for raw in query.encoded()]

    return asyncio.run(main())


def rows(pipeline: Pipeline, wanted: Any) -> list[int]:
    first = Messages(pipeline.flows).flow(0).time.seconds
    return [response.time.seconds - first for response in answer(pipeline, wanted)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, range(12)),
        ({"number": ALL}, range(12)),
        ({"number": 3}, [9, 10, 11]),
        ({"number": 100}, range(12)),
        ({"number": 3, "first": True}, [0, 1, 2]),
        ({"first": True}, range(12)),
        ({"since": 5}, range(5, 12)),
        ({"until": 5}, range(6)),
        ({"since": 4, "until": 6}, [4, 5, 6]),
        ({"since": 4, "number": 2}, [4, 5]),
        ({"until": 6, "number": 2}, [5, 6]),
        ({"since": 3, "number": 2, "first": True}, [3, 4]),
    ],
)
def test_which_flows(sampled: Pipeline, fields: dict[str, Any], expected: Any) -> None:
    assert rows(sampled, request(sampled, **fields)) == list(expected)


def test_numbers_count_what_matches(sampled: Pipeline) -> None:
    dropped = [flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED])]
    assert rows(sampled, request(sampled, whitelist=dropped)) == [5, 6, 7, 10]
    assert rows(sampled, request(sampled, whitelist=dropped, number=2)) == [7, 10]
    assert rows(sampled, request(sampled, whitelist=dropped, number=2, first=True)) == [5, 6]
    assert rows(sampled, request(sampled, blacklist=dropped, number=3)) == [8, 9, 11]


def test_an_empty_store_has_an_empty_answer(make) -> None:
    pipeline, _ = make()
    assert answer(pipeline, observer_pb2.GetFlowsRequest(number=20)) == []


def test_first_and_follow_do_not_go_together(sampled: Pipeline) -> None:
    with pytest.raises(InvalidObject, match="first"):
        Query(observer_pb2.GetFlowsRequest(first=True, follow=True), sampled.flows)


def test_a_time_that_is_none(sampled: Pipeline) -> None:
    wanted = observer_pb2.GetFlowsRequest()
    wanted.since.nanos = -5
    with pytest.raises(InvalidObject, match="since"):
        Query(wanted, sampled.flows)


def follow(pipeline: Pipeline, wanted: Any, count: int, work: Any) -> list[Any]:
    """The first `count` responses of a request that follows; `work` is done once it waits."""

    async def main() -> list[Any]:
        found: list[Any] = []

        async def read() -> None:
            async for raw in Query(wanted, pipeline.flows).encoded():
                found.append(observer_pb2.GetFlowsResponse.FromString(raw))
                if len(found) == count:
                    return

        async with cancelling("follow", read()) as reading, asyncio.timeout(10):
            for _ in range(20):
                await asyncio.sleep(0)
            work()
            await reading
        return found

    return asyncio.run(main())


def test_following_begins_now(sampled: Pipeline, make) -> None:
    def work() -> None:
        sampled.take(flows.joined([flows.event(source_port=1), flows.event(source_port=2)]))

    found = follow(sampled, observer_pb2.GetFlowsRequest(follow=True), 2, work)
    assert [each.flow.l4.TCP.source_port for each in found] == [1, 2]


def test_following_after_the_last_ones(sampled: Pipeline) -> None:
    wanted = observer_pb2.GetFlowsRequest(follow=True, number=2)
    found = follow(sampled, wanted, 3, lambda: sampled.take(flows.event(source_port=9)))
    assert [each.flow.event_type.type for each in found] == [1, 4, 4]
    assert found[-1].flow.l4.TCP.source_port == 9


def test_followers_get_only_what_matches(sampled: Pipeline) -> None:
    wanted = observer_pb2.GetFlowsRequest(
        follow=True, whitelist=[flow_pb2.FlowFilter(destination_port=["53"])]
    )
    events = flows.joined([flows.event(destination_port=port) for port in (1, 53, 2)])
    found = follow(sampled, wanted, 1, lambda: sampled.take(events))
    assert found[0].flow.l4.TCP.destination_port == 53


def test_a_follower_that_is_lapped_is_told(make) -> None:
    pipeline, _ = make(capacity=1024)

    def work() -> None:
        pipeline.take(flows.joined([flows.event()] * 1500))

    found = follow(pipeline, observer_pb2.GetFlowsRequest(follow=True), 1025, work)
    losses = [each.lost_events for each in found if each.HasField("lost_events")]
    assert sum(each.num_events_lost for each in losses) == 476
    assert losses[0].source == flow_pb2.HUBBLE_RING_BUFFER


def test_what_the_kernel_lost_is_told_in_one_message(sampled: Pipeline) -> None:
    for count in (3, 4):
        sampled.store.add_loss(Loss(count, 1), 7 * SECOND)
    told = answer(sampled, request(sampled, number=2))[-1]
    assert told.lost_events.source == flow_pb2.PERF_EVENT_RING_BUFFER
    assert (told.lost_events.num_events_lost, told.lost_events.cpu.value) == (7, 1)
    sampled.store.add_loss(Loss(1, 0), 8 * SECOND)
    told = answer(sampled, request(sampled, number=2))[-1]
    assert (told.lost_events.num_events_lost, told.lost_events.HasField("cpu")) == (8, False)


def test_a_follower_is_told_of_losses_though_no_flow_comes(sampled: Pipeline) -> None:
    wanted = observer_pb2.GetFlowsRequest(follow=True)
    found = follow(sampled, wanted, 1, lambda: sampled.store.add_loss(Loss(5, 0), SECOND))
    assert found[0].lost_events.num_events_lost == 5


# --- field masks -----------------------------------------------------------------------------------------


def masked(pipeline: Pipeline, *paths: str) -> list[Any]:
    wanted = observer_pb2.GetFlowsRequest()
    wanted.field_mask.paths.extend(paths)
    return [each.flow for each in answer(pipeline, wanted)]


def test_a_mask_leaves_out_what_it_does_not_name(sampled: Pipeline) -> None:
    whole = [each.flow for each in answer(sampled, observer_pb2.GetFlowsRequest())]
    for part, flow in zip(masked(sampled, "IP", "Summary", "source.pod_name"), whole, strict=True):
        expected = flow_pb2.Flow(Summary=flow.Summary)
        if flow.HasField("IP"):
            expected.IP.CopyFrom(flow.IP)
        expected.source.pod_name = flow.source.pod_name
        expected.source.SetInParent()
        assert part == expected


def test_deeper_paths(sampled: Pipeline) -> None:
    flow = masked(sampled, "l4.TCP.flags", "verdict")[3]
    assert flow.l4.TCP.flags.SYN
    assert (flow.l4.TCP.source_port, flow.verdict) == (0, flow_pb2.FORWARDED)
    assert [field.name for field, _ in flow.ListFields()] == ["verdict", "l4"]


def test_a_whole_part_wins_over_a_piece_of_it(sampled: Pipeline) -> None:
    flow = masked(sampled, "source.identity", "source")[3]
    assert flow.source.pod_name == "frontend"


def test_who_asks_for_what_hubble_prints_gets_what_it_needs(sampled: Pipeline) -> None:
    flow = masked(sampled, *message.PRINTED)[2]
    assert flow.traffic_direction == flow_pb2.INGRESS
    assert flow.policy_match_type == 2
    assert flow.ingress_allowed_by[0].name == "backend"
    assert not flow.uuid and not flow.source.labels


def test_a_mask_of_something_else_is_refused(sampled: Pipeline) -> None:
    for path in ("nonsense", "source.nonsense", "verdict.x", ""):
        with pytest.raises(InvalidObject, match="field_mask"):
            masked(sampled, path)


def test_a_whole_flow_has_all_parts_hubble_knows_of(sampled: Pipeline) -> None:
    flow = Messages(sampled.flows).flow(2)
    names = {field.name for field, _ in flow.ListFields()}
    assert {"uuid", "ethernet", "IP", "l4", "node_name", "node_labels", "event_type", "Summary"} <= names
    assert flow.ethernet.source == "02:00:00:00:00:01"
    assert list(flow.node_labels) == ["role=worker"]
