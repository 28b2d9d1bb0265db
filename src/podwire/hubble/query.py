"""GetFlows without gRPC: a request in, responses out, in the order and number Hubble's clients expect.

- `first` begins at the oldest flow; otherwise the newest `number` that match; `since` wins over
  `number` as the place to begin, which then only bounds how many are sent.
- `follow` goes on with what comes; alone it begins now.
- What was lost is told in one message per reason and second, and at the end of an answer that does
  not follow: flows overwritten before they could be sent (HUBBLE_RING_BUFFER), events that found
  the kernel's ring full or were withheld from it (PERF_EVENT_RING_BUFFER), events that came and could
  not be read (OBSERVER_EVENTS_QUEUE).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.api import flow_pb2, observer_pb2
from podwire.base.errors import InvalidObject
from podwire.hubble import filter as filters
from podwire.hubble.decode import Columns
from podwire.hubble.flows import Flows
from podwire.hubble.message import Messages
from podwire.hubble.read import LossReason
from podwire.model.flow import ALL

Rows = NDArray[np.int64]
LOSS_INTERVAL = 1.0
# Hubble's words for where events are lost; it has none for why.
SOURCES = {
    LossReason.RING_FULL: flow_pb2.PERF_EVENT_RING_BUFFER,
    LossReason.WITHHELD: flow_pb2.PERF_EVENT_RING_BUFFER,
    LossReason.UNREADABLE: flow_pb2.OBSERVER_EVENTS_QUEUE,
}
# Rows turned into messages between two breaths of the event loop.
_AT_ONCE = 256


class Query:
    """One GetFlows request, checked: InvalidObject says what is wrong with it."""

    def __init__(self, request: Any, flows: Flows) -> None:
        if request.first and request.follow:
            raise InvalidObject("first", "cannot be combined with follow")
        self._flows = flows
        self._store = flows.store
        self._first = request.first
        self._follow = request.follow
        self._matches = filters.compile_lists(request.whitelist, request.blacklist, flows)
        self._messages = Messages(flows, request.field_mask if request.HasField("field_mask") else None)
        self._since = _nanoseconds(request, "since")
        # Who follows has no end.
        self._until = None if request.follow else _nanoseconds(request, "until")
        self._number = request.number if 0 < request.number < ALL else None
        # Who is answered knows that what comes from now on is told.
        self._end = self._store.end
        self._now_on = request.follow and request.number == 0 and self._since is None

    async def encoded(self) -> AsyncIterator[bytes]:
        """GetFlowsResponse messages as they travel. Ends unless the request follows."""
        end = self._end
        first = end if self._now_on else self._store.first
        losses = _Losses(self._flows, first)
        if not self._now_on:
            async for rows in self._stored(first, end):
                async for response in self._send(rows, losses):
                    yield response
        if self._follow:
            async for response in self._followed(end, losses):
                yield response
            return
        for response in losses.told():
            yield response.SerializeToString()

    # --- which rows ------------------------------------------------------------------------------

    async def _stored(self, first: int, end: int) -> AsyncIterator[Rows]:
        """Rows of first..end-1 to send, oldest first, in pieces."""
        if self._first or self._since is not None or self._number is None:
            left = self._number if not self._follow else None
            for start, columns in self._store.chunks(first, end):
                rows = start + np.flatnonzero(self._test(columns))
                if left is not None:
                    rows = rows[:left]
                    left -= len(rows)
                if len(rows):
                    yield rows
                if left == 0:
                    return
                await asyncio.sleep(0)
            return
        found: list[Rows] = []
        missing = self._number
        for start, columns in self._store.chunks(first, end, newest_first=True):
            rows = start + np.flatnonzero(self._test(columns))[-missing:]
            found.append(rows)
            missing -= len(rows)
            if missing == 0:
                break
            await asyncio.sleep(0)
        for rows in reversed(found):
            yield rows

    def _test(self, columns: Columns) -> NDArray[np.bool_]:
        passed = self._matches(columns)
        if self._since is not None:
            passed &= columns["time"] >= self._since
        if self._until is not None:
            passed &= columns["time"] <= self._until
        return passed

    async def _followed(self, cursor: int, losses: _Losses) -> AsyncIterator[bytes]:
        store = self._store
        while True:
            # What is lost now and may not be told yet is told in a moment, whether more comes or not.
            with suppress(TimeoutError):
                async with asyncio.timeout(LOSS_INTERVAL if losses.pending else None):
                    await store.wait(cursor)
            if cursor < store.first:
                losses.overwritten += store.first - cursor
                cursor = store.first
            end = store.end
            for start, columns in store.chunks(cursor, end):
                rows = start + np.flatnonzero(self._test(columns))
                async for response in self._send(rows, losses):
                    yield response
                if start < store.first:  # the writer has lapped this reader
                    break
                cursor = start + len(columns["time"])
            for response in losses.told(every=LOSS_INTERVAL):
                yield response.SerializeToString()

    async def _send(self, rows: Rows, losses: _Losses) -> AsyncIterator[bytes]:
        for at in range(0, len(rows), _AT_ONCE):
            part = rows[at : at + _AT_ONCE]
            stored = part[part >= self._store.first]
            losses.overwritten += len(part) - len(stored)
            for response in self._messages.encoded(stored):
                yield response
            await asyncio.sleep(0)


class _Losses:
    """What one request has missed and not been told yet. Losses before row `row` are not ours."""

    def __init__(self, flows: Flows, row: int) -> None:
        self._flows = flows
        # By sums and not by records: of those the store keeps only the last.
        self._told = dict(flows.store.lost_by)
        for loss in flows.store.losses:
            if loss.row >= row:
                self._told[loss.reason] -= loss.count
        self._told_at = 0.0
        self._since = time.time_ns()
        self.overwritten = 0

    @property
    def pending(self) -> bool:
        return self.overwritten > 0 or self._told != self._flows.store.lost_by

    def told(self, *, every: float = 0.0) -> Iterator[Any]:
        """LostEvent messages for what was lost until now, at most one per reason and `every` s."""
        now = time.monotonic()
        store = self._flows.store
        if (every and now - self._told_at < every) or not self.pending:
            return
        self._told_at = now
        wall = time.time_ns()
        if self.overwritten:
            yield self._message(flow_pb2.HUBBLE_RING_BUFFER, self.overwritten, self._since, wall, None)
            self.overwritten = 0
        for reason, lost in store.lost_by.items():
            count = lost - self._told[reason]
            if count:
                self._told[reason] = lost
                yield self._told_of(reason, count, wall)
        self._since = wall

    def _told_of(self, reason: LossReason, count: int, wall: int) -> Any:
        """One message; from when and of which CPU, as far as the records go back."""
        records, left = [], count
        for loss in reversed(self._flows.store.losses):
            if left > 0 and loss.reason is reason:
                records.append(loss)
                left -= loss.count
        cpus = {loss.cpu for loss in records} if left <= 0 else set()
        first = records[-1].time if left <= 0 and records else self._since
        last = records[0].time if records else wall
        return self._message(SOURCES[reason], count, first, last, cpus.pop() if len(cpus) == 1 else None)

    def _message(self, source: Any, count: int, first: int, last: int, cpu: int | None) -> Any:
        response = observer_pb2.GetFlowsResponse(node_name=self._flows.node)
        response.time.FromNanoseconds(last)
        response.lost_events.source = source
        response.lost_events.num_events_lost = count
        response.lost_events.first.FromNanoseconds(first)
        response.lost_events.last.FromNanoseconds(last)
        if cpu is not None and cpu >= 0:
            response.lost_events.cpu.value = cpu
        return response


def _nanoseconds(request: Any, name: str) -> int | None:
    if not request.HasField(name):
        return None
    stamp = getattr(request, name)
    if not 0 <= stamp.nanos < 1_000_000_000 or not -62135596800 <= stamp.seconds <= 253402300799:
        raise InvalidObject(name, "is not a valid time")
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanos)
