"""Doors: connections are counted from the moment they are accepted, by who they come from.

A server that anybody can connect to lets nobody take all of it. Each address has a share of the places,
and some places are for those alone without whom nothing runs (`Admission`). A place is taken from accept
until the descriptor is closed, so a connection that never says a word, nor finishes a TLS handshake, has
one all the while. Whoever finds none is closed at once, counted, and the log says so ever more seldom.

A `Door` accepts, and hands what is let in to the server's own coroutine. Where the process has no
descriptor left it waits for one: it neither ends nor spins.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any

from podwire.base.aio import Supervised, boundary, seldom

log = logging.getLogger(__name__)

# What the places of one process are measured for; `affordable` makes them fewer where it has fewer.
DESCRIPTORS = 16384
_AT_ONCE = 64  # accepted in one turn of the loop, which has others to serve
_RETRY = 0.2  # s until the next accept where the kernel had nothing to give

Welcome = Callable[[socket.socket, str], Awaitable[None]]


class Admission:
    """Who may have how many places: at most `most` in all, one address a sixteenth of them.

    `favoured` (and whoever is on this machine: loopback, unix sockets) may have a quarter each, and the
    last quarter of all places is theirs alone: others, however many, leave it free.
    """

    def __init__(
        self, what: str, most: int, favoured: Iterable[str] = (), *, share: int | None = None
    ) -> None:
        """With `share` one address may have so many, favoured or not."""
        self.what, self.most = what, most
        self.share, self.favoured_share = share or max(1, most // 16), share or max(1, most // 4)
        self.reserve = most // 4
        self.refused = 0
        self._favoured = frozenset(favoured)
        self._taken: Counter[str] = Counter()
        self._all = self._others = 0

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._all

    def enter(self, client: str) -> Callable[[], None] | None:
        """Take a place; what gives it back, once. None where there is no room, and that is counted."""
        favoured = client in self._favoured or _here(client)
        share = self.favoured_share if favoured else self.share
        if (
            self._taken[client] >= share
            or self._all >= self.most
            or (not favoured and self._others >= self.most - self.reserve)
        ):
            self._refuse(client)
            return None
        self._count(client, favoured, 1)
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._count(client, favoured, -1)

        return leave

    def _count(self, client: str, favoured: bool, number: int) -> None:
        self._all += number
        self._others += 0 if favoured else number
        self._taken[client] += number
        if not self._taken[client]:
            del self._taken[client]

    def _refuse(self, client: str) -> None:
        self.refused += 1
        if not self._taken[client]:
            del self._taken[client]  # looking it up made it
        if seldom(self.refused):
            log.warning(
                "%s: no room for one more of %s, which has %d, as all have %d of %d; refused %d so far",
                self.what, client or "a unix socket", self._taken.get(client, 0), self._all, self.most,
                self.refused,
            )  # fmt: skip


def _client(address: object) -> str:
    """The address alone, in one form: a socket for both families shows IPv4 as mapped."""
    return str(address[0]).removeprefix("::ffff:") if isinstance(address, tuple) else ""


def _here(client: str) -> bool:
    """Whether a client is of this machine: by loopback, or by a unix socket, which has no address."""
    return not client or ipaddress.ip_address(client.partition("%")[0]).is_loopback


def affordable(most: int) -> int:
    """`most`, or as much less as this process may have fewer than `DESCRIPTORS`, for which it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        soft = min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, most * min(soft, DESCRIPTORS) // DESCRIPTORS)


class Door:
    """Accepts on `listeners`, which it listens on and closes at the end, while its block runs.

    `welcome(connection, client)` serves a connection or hands it on; it may end before the connection
    does. What fails in it is the failure of this connection alone.
    """

    def __init__(self, listeners: list[socket.socket], admission: Admission, welcome: Welcome) -> None:
        self.listeners, self.admission, self._welcome = listeners, admission, welcome
        self.exhausted = 0
        self._group = Supervised(admission.what)
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}

    async def __aenter__(self) -> Door:
        for one in self.listeners:
            one.setblocking(False)
            one.listen(1024)
        await self._group.__aenter__()
        for one in self.listeners:
            self._open(one)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for one in self.listeners:
            if one in self._paused:
                self._paused.pop(one).cancel()
            loop.remove_reader(one)
            one.close()
        await self._group.__aexit__(kind, error, trace)

    def _open(self, listener: socket.socket) -> None:
        self._paused.pop(listener, None)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it was gone before it was accepted
            except OSError as error:
                return self._pause(listener, error)
            client = _client(address)
            leave = self.admission.enter(client)
            if leave is None:
                accepted.close()
                continue
            connection = _Counted(accepted, leave)
            self._group.once(f"welcome {client}", self._serve(connection, client))

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """A listener that is left alone stays readable: without a pause the loop would only spin."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        self._paused[listener] = loop.call_later(_RETRY, self._open, listener)
        self.exhausted += 1
        if seldom(self.exhausted):
            log.warning(
                "%s: cannot accept (%d times so far): %s", self.admission.what, self.exhausted, error.strerror
            )

    async def _serve(self, connection: socket.socket, client: str) -> None:
        with boundary(f"a connection of {client or 'a unix socket'}"):
            try:
                await self._welcome(connection, client)
            except OSError:  # of the client, which went away, was silent, or does not speak TLS
                connection.close()
            except BaseException:
                connection.close()
                raise


class _Counted(socket.socket):
    """A connection that gives its place back when its descriptor is closed, whoever closes it."""

    def __init__(self, accepted: socket.socket, leave: Callable[[], None]) -> None:
        kind = accepted.family, accepted.type, accepted.proto
        super().__init__(*kind, fileno=accepted.detach())
        self.setblocking(False)
        self._leave = leave

    def _real_close(self, *arguments: Any) -> None:
        super()._real_close(*arguments)  # type: ignore[misc]
        self._leave()
