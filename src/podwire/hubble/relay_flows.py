"""GetFlows over several nodes: what all have stored, in the order of time, and then what comes.

- `number` counts after merging: the newest (or, with `first` or `since`, the oldest) of all nodes.
- A node that does not answer is named in a node status and does not hold up the others; while
  following, so is one that goes away, comes back, comes new or is no peer any more.
- A request that nodes refuse is refused: `Refused`, once, however many nodes say so.

Memory is bounded: messages read ahead per node, messages kept to know the newest, messages held back
to put them in order. Who reads slowly makes the nodes wait, and is told by them what it missed.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from podwire.api import observer_pb2
from podwire.base.aio import Backoff, Channel, Closed, Supervised, cancelling
from podwire.hubble.relay_nodes import Away, Node, Nodes, State
from podwire.model.flow import ALL

# How long the next stored flow of a node may take, and all waits for one node in one answer: who sends
# one flow every few seconds would hold up the others for hours, and never be late with any.
PATIENCE, PATIENCE_IN_ALL = 5.0, 10.0
# Messages read ahead per node.
AHEAD = 64
# Up to so many newest flows are kept as messages; for more, their times are asked for first.
KEPT = 4096
# How long a flow is held back while following, so that those of several nodes can be put in order.
HOLD = 0.25
# And how many: per node, but no fewer and no more than these in all.
HELD_PER_NODE, HELD_AT_LEAST, HELD_AT_MOST = 64, 1024, 1 << 16

Write = Callable[[Any], Awaitable[None]]


class Answer:
    """The answer to one request, given to `write`."""

    def __init__(self, request: Any, nodes: Nodes, write: Write) -> None:
        self._request = request
        self._nodes = nodes
        self._write = write
        self._last: dict[Node, int] = {}  # time of the last stored flow that came, 0 if there was none

    async def run(self) -> None:
        """Ends unless the request follows. Raises Refused."""
        await self._nodes.known()
        connected = [node for node in self._nodes if node.state is State.CONNECTED]
        away = [node for node in self._nodes if node.state is not State.CONNECTED]
        if connected:
            await self._write(node_status(State.CONNECTED, [node.name for node in connected]))
        if away:
            problem = away[0].problem or "not connected yet"
            await self._write(node_status(State.UNAVAILABLE, [node.name for node in away], problem))
        if not self._request.follow:
            await self._stored(self._request, connected)
            return
        began = time.time_ns()
        if self._request.number or self._request.HasField("since"):
            stored = _changed(self._request, follow=False)
            stored.ClearField("until")  # who follows has no end
            if stored.HasField("since"):
                stored.number = 0
            await self._stored(stored, connected)
        await self._follow(connected, began)

    # --- what is stored --------------------------------------------------------------------------

    async def _stored(self, request: Any, nodes: list[Node]) -> None:
        number = request.number if 0 < request.number < ALL else None
        if number is None or request.first or request.HasField("since"):
            await self._oldest(request, nodes, number)
        elif number <= KEPT:
            kept: deque[Any] = deque(maxlen=number)
            await self._merge(request, nodes, _into(kept))
            for response in kept:
                await self._write(response)
        else:
            await self._many_newest(request, nodes, number)

    async def _oldest(self, request: Any, nodes: list[Node], number: int | None, skip: int = 0) -> None:
        """The first `number` after merging, or all; without the `skip` first ones."""
        counted = 0

        async def take(response: Any) -> bool:
            nonlocal counted
            counted += 1
            if counted > skip:
                await self._write(response)
            return number is None or counted < number

        await self._merge(request, nodes, take)

    async def _many_newest(self, request: Any, nodes: list[Node], number: int) -> None:
        """More than may be kept: when they were is asked first, and then for what was since then."""
        times = array("q")

        async def take(response: Any) -> bool:
            times.append(when(response))
            return True

        asked = _changed(request)
        asked.field_mask.paths[:] = ["time"]
        await self._merge(asked, nodes, take)
        if not times:
            return
        begin = max(0, len(times) - number)
        asked = _changed(request, number=0)
        asked.since.FromNanoseconds(times[begin])
        asked.until.FromNanoseconds(times[-1])
        there = [node for node in nodes if node.state is State.CONNECTED]
        await self._oldest(asked, there, None, skip=begin - bisect_left(times, times[begin]))

    async def _merge(self, request: Any, nodes: list[Node], take: Callable[[Any], Awaitable[bool]]) -> None:
        """`take` the flows of all in the order of time, until it says that it is enough.

        Each node answers in order, so the earliest of their next ones is the next. All are read ahead,
        so that several that hang are found to at the same time.
        """
        async with Supervised("relay") as group:
            ahead = []
            for node in nodes:
                made = _Ahead(node)
                made.task = group.once(f"read {node.name}", self._read(node, request, made.channel))
                ahead.append(made)
            heap: list[tuple[int, int, Any]] = []
            for index in range(len(nodes)):
                await self._advance(index, ahead[index], heap)
            merged = 0
            while heap:
                _, index, response = heapq.heappop(heap)
                if not await take(response):
                    return
                merged += 1
                if (
                    not merged % AHEAD
                ):  # neither `take` nor what was read ahead need make us wait for anything
                    await asyncio.sleep(0)
                await self._advance(index, ahead[index], heap)

    async def _read(self, node: Node, request: Any, ahead: Channel[Any]) -> None:
        try:
            async with node.used():
                await node.flows(request, ahead.send, patience=PATIENCE)
            self._last.setdefault(node, 0)
        except Away as error:
            await ahead.send(node_status(error.state, [node.name], str(error)))
        ahead.close()

    async def _advance(self, index: int, ahead: _Ahead, heap: list[tuple[int, int, Any]]) -> None:
        """The next flow of a node onto the heap; what is no flow is told at once."""
        while (response := await ahead.next()) is not None:
            if response.HasField("flow"):
                self._last[ahead.node] = when(response)
                heapq.heappush(heap, (when(response), index, response))
                return
            await self._write(response)

    # --- what comes ------------------------------------------------------------------------------

    async def _follow(self, connected: list[Node], began: int) -> None:
        held = _Held()
        async with Supervised("relay") as group:
            group.start("write", held.write(self._write))
            followed: set[Node] = set()
            while True:
                others = self._nodes.changed()
                there = set(self._nodes)
                held.nodes = len(there)
                for node in there - followed:
                    away = node not in connected
                    since = None if followed else self._since(node, not away, began)
                    group.once(f"follow {node.name}", self._follow_node(node, since, held, away=away))
                followed = there
                await others

    def _since(self, node: Node, connected: bool, began: int) -> int | None:
        """Where to go on with one of the first nodes, in ns; None: with what comes from now on.

        Behind the last flow it sent. Where it sent none because none matched, from the beginning: what
        matches now is new, whatever the node's clock says.
        """
        given: int | None = self._request.since.ToNanoseconds() if self._request.HasField("since") else None
        if node in self._last:
            return max(given or 0, self._last[node] + 1 if self._last[node] else 0)
        if given is not None:
            return given
        return None if connected and not self._request.number else began

    async def _follow_node(self, node: Node, since: int | None, held: _Held, *, away: bool) -> None:
        """Flows of one node until it is no peer any more; told when it goes away and when it is back."""
        asked = _changed(self._request, number=0)
        asked.ClearField("until")
        asked.ClearField("since")
        if since is not None:
            asked.since.FromNanoseconds(since)
        failures = 0
        async with node.used(following=True):
            while await node.until(State.CONNECTED, State.GONE) is State.CONNECTED:
                if away:
                    await held.put(node_status(State.CONNECTED, [node.name]))
                away, broke = True, time.time_ns()
                problem = await self._read_following(node, asked, held)
                if node.state is State.GONE:
                    break
                await held.put(node_status(State.UNAVAILABLE, [node.name], problem))
                if not asked.HasField("since"):  # nothing came yet: at least what was from then on
                    asked.since.FromNanoseconds(broke)
                failures += 1
                await asyncio.sleep(Backoff(first=0.2, most=2.0).after(failures))
            await held.put(node_status(State.GONE, [node.name]))

    async def _read_following(self, node: Node, asked: Any, held: _Held) -> str:
        """Read until the node goes away; why it did."""

        async def take(response: Any) -> None:
            await held.put(response)
            if response.HasField("flow"):  # after a break, go on behind the last one that came
                asked.since.FromNanoseconds(when(response) + 1)

        request = _changed(asked)
        async with (
            cancelling(f"relay: flows of {node.name}", node.flows(request, take)) as reading,
            cancelling(f"relay: state of {node.name}", node.until(State.UNAVAILABLE, State.GONE)) as left,
        ):
            await asyncio.wait((reading, left), return_when=asyncio.FIRST_COMPLETED)
        if reading.cancelled():
            return node.problem
        with suppress(Away):
            reading.result()
            return "the node ended its answer"
        return str(reading.exception())


class _Ahead:
    """What was read ahead of one node, and how long it may still be waited for."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.channel: Channel[Any] = Channel(AHEAD)
        self.task: asyncio.Task[None] | None = None  # that reads
        self._left = PATIENCE_IN_ALL

    async def next(self) -> Any:
        """None when there is no more; once it took too long in all, that is told and is the end."""
        if self.channel.statistics().length:
            return await self.channel.receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._left):
                return await self.channel.receive()
        except Closed:
            return None
        except TimeoutError:
            if self.task is not None:
                self.task.cancel()
            self.channel.close()
            return node_status(
                State.ERROR, [self.node.name], "it answers too slowly: its flows are not whole"
            )
        finally:
            self._left = max(0.0, self._left - (loop.time() - began))


class _Held:
    """Flows held back for a moment, in the order of time. `nodes` is of how many they come."""

    def __init__(self) -> None:
        self.nodes = 0
        self._heap: list[tuple[int, int, float, Any]] = []
        self._number = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def most(self) -> int:
        return min(HELD_AT_MOST, max(HELD_AT_LEAST, HELD_PER_NODE * self.nodes))

    async def put(self, response: Any) -> None:
        """Waits while there is no room: the client is slow, so the node waits too."""
        while len(self._heap) >= 2 * self.most:
            self._room.clear()
            await self._room.wait()
        due = asyncio.get_running_loop().time() + HOLD
        heapq.heappush(self._heap, (when(response), self._number, due, response))
        self._number += 1
        self._came.set()

    async def write(self, write: Write) -> None:
        """Until cancelled: what was held long enough, and at once what is too much to hold."""
        loop = asyncio.get_running_loop()
        while True:
            self._came.clear()
            while self._heap and (len(self._heap) > self.most or self._heap[0][2] <= loop.time()):
                response = heapq.heappop(self._heap)[3]
                self._room.set()
                await write(response)
            pause = self._heap[0][2] - loop.time() if self._heap else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._came.wait()


def when(response: Any) -> int:
    """Time of a response in ns since the epoch."""
    return int(response.time.seconds) * 1_000_000_000 + int(response.time.nanos)


def node_status(state: State, names: list[str], problem: str = "") -> Any:
    """GetFlowsResponse that tells how nodes are."""
    response = observer_pb2.GetFlowsResponse(node_name="relay")
    response.time.FromNanoseconds(time.time_ns())
    response.node_status.state_change = state.value
    response.node_status.node_names.extend(sorted(names))
    response.node_status.message = problem
    return response


def _changed(request: Any, **fields: Any) -> Any:
    made = observer_pb2.GetFlowsRequest()
    made.CopyFrom(request)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _into(kept: deque[Any]) -> Callable[[Any], Awaitable[bool]]:
    async def take(response: Any) -> bool:
        kept.append(response)
        return True

    return take
