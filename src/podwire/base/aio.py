"""Structured concurrency: supervised named tasks, boundaries, bounded channels with statistics.

The only module that touches `asyncio.create_task` and `asyncio.Queue`. An eternal task that
ends is a fault; a task that fails brings its group down with the error of that task.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from podwire.base.errors import PodwireError

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)


class TaskEnded(Exception):
    """A task that should run for ever returned."""


class Supervised:
    """A group of named tasks that live and end together. Use as ``async with Supervised("agent")``.

    `start` runs a task that must not end before the group does; `once` runs one that may.
    Leaving the block cancels what still runs and waits for it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._group = asyncio.TaskGroup()
        # By themselves, not by name: names are for people, and two tasks may have the same.
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._stopping = False

    async def __aenter__(self) -> Supervised:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            raise _first(group) from group

    def start(self, what: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` for the life of the group; its end is a fault."""
        task = self._add(what, self._eternal(what, work))
        # Cancelled before its first step, the task never awaits `work`; closing it then is silent.
        task.add_done_callback(lambda _: work.close())
        return task

    def once(self, what: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work`, which may end."""
        return self._add(what, work)

    def stop(self) -> None:
        """Cancel all tasks; the group ends when they have."""
        self._stopping = True
        for task in tuple(self._tasks):
            task.cancel()

    async def wait(self) -> None:
        """Until the group is told to stop or a task fails."""
        await asyncio.get_running_loop().create_future()

    @property
    def running(self) -> list[str]:
        """Names of the tasks that run now."""
        return [name for task, name in self._tasks.items() if not task.done()]

    def _add(self, what: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._group.create_task(work, name=f"{self.name}: {what}")
        self._tasks[task] = what
        task.add_done_callback(self._tasks.pop)
        return task

    async def _eternal(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        await work
        if not self._stopping:
            raise TaskEnded(f"{self.name}: “{what}” ended, and should not have")


@contextmanager
def boundary(what: str, tell: Callable[[Exception], None] | None = None) -> Iterator[None]:
    """Whatever fails inside is the failure of `what` alone: it is logged, told, and goes no further.

    For work on one object, one request, one datagram, one event, done in a task or a callback that
    others need. `tell` reports it where a person looks (an Event, an answer); what that raises is
    logged too. Cancellation passes: it is no failure.
    """
    try:
        yield
    except PodwireError as error:
        log.warning("%s failed: %s", what, error)
        _told(what, tell, error)
    except Exception as error:  # the boundary: what nobody thought of must not end what others need
        log.exception("%s failed", what)
        _told(what, tell, error)


def _told(what: str, tell: Callable[[Exception], None] | None, error: Exception) -> None:
    try:
        if tell is not None:
            tell(error)
    except Exception:  # as in `boundary`: a report that fails is only a line in the log
        log.exception("the failure of %s could not be reported", what)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass(slots=True)
class ChannelStatistics:
    capacity: int
    length: int
    sent: int
    received: int
    dropped: int


class Closed(Exception):
    """The channel is closed and empty."""


class Channel(Generic[T]):
    """A bounded queue. `send` waits for room; `offer` drops the oldest instead and counts it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._sent = self._received = self._dropped = 0

    def offer(self, item: T) -> None:
        if len(self._items) >= self.capacity:
            self._items.popleft()
            self._dropped += 1
        self._items.append(item)
        self._sent += 1
        self._changed.set()

    async def send(self, item: T) -> None:
        while len(self._items) >= self.capacity and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if self._closed:
            raise Closed
        self._items.append(item)
        self._sent += 1
        self._changed.set()

    async def receive(self) -> T:
        while not self._items:
            if self._closed:
                raise Closed
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._received += 1
        self._changed.set()
        return item

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self.capacity, len(self._items), self._sent, self._received, self._dropped)

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            while True:
                yield await self.receive()
        except Closed:
            return


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between tries: doubling from `first` to `most` seconds, with jitter."""

    first: float = 0.1
    most: float = 10.0

    def after(self, failures: int) -> float:
        doubled = min(max(0, failures - 1), 64)  # 2.0 ** 1024 is no float, and who fails for hours gets there
        return min(self.most, self.first * 2.0**doubled) * random.uniform(0.8, 1.2)


async def eventually(
    condition: Callable[[], T | Awaitable[T]], *, timeout: float, what: str, interval: float = 0.02
) -> T:
    """The first true result of `condition`; TimeoutError naming `what` if none comes in time."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        result = condition()
        value: Any = await result if isinstance(result, Awaitable) else result
        if value:
            return value  # type: ignore[no-any-return]
        if asyncio.get_running_loop().time() >= deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        await asyncio.sleep(interval)


async def unbroken(work: Callable[[], T]) -> T:
    """`work()` in a thread. Cancelled, it waits for the end of the work all the same: what the thread uses
    (descriptors, sockets) is closed by who is cancelled, and must not be closed under it."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # looked at: nobody else will
        raise cancelled
    return running.result()


async def in_slices(steps: Iterator[None], most: float = 0.02) -> None:
    """Take all `steps`, and let others run after each `most` seconds of them."""
    clock = asyncio.get_running_loop().time
    until = clock() + most
    for _ in steps:
        if clock() >= until:
            await asyncio.sleep(0)
            until = clock() + most


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], most: int) -> None:
    """`work` of each item, at most `most` at once. The first failure ends all, and is raised."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(most):
                group.create_task(worker())
    except BaseExceptionGroup as failed:
        raise _first(failed) from failed


class Room:
    """At most `most` at once; whoever finds no room is told, and the log is, more and more seldom."""

    def __init__(self, what: str, most: int) -> None:
        self.what, self.most = what, most
        self.taken = self.refused = 0

    @contextmanager
    def one(self) -> Iterator[bool]:
        """Whether there is room for the block; it is taken meanwhile."""
        if self.taken >= self.most:
            self.refuse()
            yield False
            return
        self.taken += 1
        try:
            yield True
        finally:
            self.taken -= 1

    def refuse(self) -> None:
        """Count one that found no room, and say so."""
        self.refused += 1
        if seldom(self.refused):
            log.warning("%d %s at once are the most: refused %d so far", self.most, self.what, self.refused)


def seldom(count: int) -> bool:
    """Whether to log the `count`-th time, of what anybody can bring about: the 1st, 2nd, 4th, 8th, …"""
    return count & (count - 1) == 0


class Turns(Generic[K]):
    """Whoever asks for the same key waits for its turn; keys that nobody asks for cost nothing."""

    def __init__(self) -> None:
        self._asked: dict[K, tuple[asyncio.Lock, int]] = {}  # key → lock, those that have or want it

    def __len__(self) -> int:
        return len(self._asked)

    @asynccontextmanager
    async def of(self, key: K) -> AsyncIterator[None]:
        lock, count = self._asked.get(key, (asyncio.Lock(), 0))
        self._asked[key] = lock, count + 1
        try:
            async with lock:
                yield
        finally:
            # Counted, for a lock that was let go of is not locked until the next in turn runs.
            _, count = self._asked.pop(key)
            if count > 1:
                self._asked[key] = lock, count - 1


async def paced(source: AsyncIterator[T], interval: float) -> AsyncIterator[T | None]:
    """The items of `source`, and None whenever there was none for `interval` seconds."""
    due = asyncio.ensure_future(anext(source))
    try:
        while True:
            done, _ = await asyncio.wait((due,), timeout=interval)
            if not done:
                yield None
                continue
            try:
                item = due.result()
            except StopAsyncIteration:
                return
            due = asyncio.ensure_future(anext(source))
            yield item
    finally:
        due.cancel()
        await asyncio.gather(due, return_exceptions=True)


@asynccontextmanager
async def cancelling(what: str, work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run `work` beside the block; cancelled and awaited when the block is left."""
    task = asyncio.create_task(work, name=what)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
