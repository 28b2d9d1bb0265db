"""Queries over UDP, taken in turns: a pod's flood takes cluster DNS from nobody but itself.

The socket is emptied at once, so that what others send finds room in it, and what came waits by who sent it.
Each address in turn has one query answered; it may have some waiting, and once more come in a second than a
busy cluster asks, a share of that second. No pod sends under another's address, so an address is a client,
also of IPv6: a node's pods have one /64, which is nobody's alone. What is beyond a share is withheld:
counted, and never looked at.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from podwire.base.aio import Supervised, boundary, seldom

log = logging.getLogger(__name__)

WAITING = 32  # queries of one address that wait for their turn
BUSY = 2000  # queries a second, of all: below, nobody is withheld anything
SHARE = 250  # of one address in a second that is busy
CLIENTS = 4096  # that have queries waiting at once
_AT_ONCE = 256  # datagrams taken from the socket in one turn of the loop
_ANSWERS = 16  # queries answered in one
_BUFFER = 4 << 20  # bytes of the socket's: what comes while the loop does something else
_LARGEST = 65535

Answer = Callable[[bytes, str], Awaitable[bytes | None]]


class Shares:
    """Who has what waiting, and how much came of whom in this second. `now` is in seconds, by any clock."""

    def __init__(self) -> None:
        self.withheld = 0
        self._waiting: OrderedDict[str, deque[Any]] = OrderedDict()
        self._second = 0
        self._all = 0
        self._came: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def empty(self) -> bool:
        return not self._waiting

    def put(self, client: str, item: Any, now: float) -> bool:
        """Let it wait for its turn; False where it is withheld."""
        if int(now) != self._second:
            self._second, self._all = int(now), 0
            self._came.clear()
        self._all += 1
        busy = self._all > BUSY
        if (
            len(self._waiting.get(client, ())) >= WAITING
            or (busy and self._came[client] >= SHARE)
            or (client not in self._waiting and len(self._waiting) >= CLIENTS)
        ):
            self._withhold(client)
            return False
        self._came[client] += 1
        self._waiting.setdefault(client, deque()).append(item)
        return True

    def take(self) -> Any:
        """The next one's; who had its turn is last again. None if nobody waits."""
        if not self._waiting:
            return None
        client, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[client] = items
        return item

    def _withhold(self, client: str) -> None:
        self.withheld += 1
        if seldom(self.withheld):
            log.warning("cluster DNS: too many queries of %s; withheld %d so far", client, self.withheld)


class Datagrams:
    """Answers what comes on a bound socket, in a group's tasks."""

    def __init__(self, sock: socket.socket, answer: Answer, shares: Shares) -> None:
        self.shares = shares
        self.unsent = 0  # answers that the socket had no room for
        self._sock, self._answer = sock, answer
        self._buffer = memoryview(bytearray(_LARGEST))
        self._came = asyncio.Event()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)

    async def serve(self) -> None:
        """Until cancelled. The socket stays its owner's."""
        loop = asyncio.get_running_loop()
        async with Supervised("queries over UDP") as group:
            loop.add_reader(self._sock, self._read)
            try:
                while True:
                    await self._came.wait()
                    self._came.clear()
                    while not self.shares.empty:
                        self._begin(group)
                        await asyncio.sleep(
                            0
                        )  # those that wait for nothing end here; others have the loop too
            finally:
                loop.remove_reader(self._sock)

    def _read(self) -> None:
        now = time.monotonic()
        for _ in range(_AT_ONCE):
            try:
                size, address = self._sock.recvfrom_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:  # an ICMP error that some answer brought about
                log.debug("cluster DNS: %s", error)
                continue
            client = str(address[0]).removeprefix("::ffff:")
            self.shares.put(client, (bytes(self._buffer[:size]), address, client), now)
        self._came.set()

    def _begin(self, group: Supervised) -> None:
        for _ in range(_ANSWERS):
            item = self.shares.take()
            if item is None:
                return
            group.once("query", self._reply(*item))

    async def _reply(self, data: bytes, address: Any, client: str) -> None:
        with boundary("answering a datagram"):
            wire = await self._answer(data, client)
            if wire:
                try:
                    self._sock.sendto(wire, address)
                except OSError:
                    self.unsent += 1
