"""What the kernel tells of changes to a namespace's network, as they happen.

A socket of its own, apart from the one that asks: notices come at any time and would stand between
an answer and its question. A reader that is too slow loses notices and is told so (`Overrun`): it
then reads everything anew, as at its start.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from types import TracebackType
from typing import Self

from podwire.base.errors import NetworkError
from podwire.net import namespaces
from podwire.net.netlink import messages_of

# Groups are bits here: links, and addresses and routes of both families.
LINKS, ADDRESSES, ROUTES = 0x1, 0x10 | 0x100, 0x40 | 0x400
BUFFER = 1 << 20
DATAGRAM = 1 << 16
BATCH = 1000  # datagrams: whoever changes things without end must not keep the reader from its work


class Overrun(NetworkError):
    """Notices were lost."""

    def __init__(self) -> None:
        super().__init__("the kernel told of more changes than were read; some are lost")


class Notices:
    """Of the namespace `namespace` (None = the caller's). For one task."""

    def __init__(self, namespace: str | None = None, *, groups: int = LINKS | ADDRESSES | ROUTES) -> None:
        self._socket = namespaces.open_socket(
            namespace, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.setblocking(False)
        self._socket.bind((0, groups))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def next(self) -> list[tuple[int, bytes]]:
        """(type, body) of what was told since the last call; waits for the first. Overrun if some is lost."""
        try:
            found = _bodies(await asyncio.get_running_loop().sock_recv(self._socket, DATAGRAM))
            for _ in range(BATCH):  # what waits already, so that many changes at once are one batch
                found += _bodies(self._socket.recv(DATAGRAM))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            raise Overrun from error
        return found


def _bodies(data: bytes) -> list[tuple[int, bytes]]:
    return [(kind, body) for kind, _, _, body in messages_of(data)]
