"""port-forward: SPDY/3.1 inside of WebSocket messages, each stream pair one connection to the pod.

kubectl opens two streams a connection, with headers ``port`` and ``requestid``: one of type ``error``,
on which a sentence says what went wrong, and one of type ``data``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web

from podwire.apiserver.spdy import Data, Framer, Opened, Ping, ProtocolError, Reset
from podwire.apiserver.status import bad_request
from podwire.apiserver.streams import PodRuntime, PortStream
from podwire.base.aio import Room, Supervised, boundary
from podwire.base.errors import Conflict, PodwireError

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
_MOST = 256  # connections of one kubectl at a time
_LARGEST = 4 * 1024 * 1024
_EARLY = 1 << 20  # bytes of a connection that is not made yet


async def forward(
    request: web.BaseRequest, runtime: PodRuntime, namespace: str, pod: str, room: Room
) -> web.StreamResponse:
    """One kubectl port-forward, until it goes away; `room` is for the connections of all of them."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("unable to upgrade: only WebSocket connections are served")
    socket = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=_LARGEST)
    if not socket.can_prepare(request).protocol:
        raise bad_request(f"supported protocols: {PROTOCOL}")
    await socket.prepare(request)
    async with Supervised(f"port-forward {namespace}/{pod}") as group:
        session = _Session(socket, runtime, namespace, pod, group, room)
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    await session.receive(message.data)
        except (ProtocolError, ConnectionError):
            await socket.close(code=1002)
    return socket


class _Session:
    """The streams of one kubectl."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        runtime: PodRuntime,
        namespace: str,
        pod: str,
        group: Supervised,
        room: Room,
    ) -> None:
        self._socket = socket
        self._runtime = runtime
        self._place = (namespace, pod)
        self._group = group
        self._room = room
        self._framer = Framer()
        self._errors: dict[str, int] = {}
        self._data: dict[int, PortStream] = {}
        self._early: dict[int, list[Data]] = {}

    async def receive(self, raw: bytes) -> None:
        for event in self._framer.receive(raw):
            match event:
                case Opened():
                    await self._opened(event)
                case Data():
                    await self._received(event)
                case Reset():
                    await self._drop(event.stream)
                case Ping():
                    await self._socket.send_bytes(self._framer.ping(event.number))

    async def _opened(self, event: Opened) -> None:
        headers = event.headers
        kind, port = headers.get("streamtype"), headers.get("port", "")
        connection = headers.get("requestid", "")
        if (
            not port.isascii()
            or not port.isdigit()
            or not 0 < int(port[:6]) < 65536
            or len(self._data) + len(self._early) >= _MOST
            or len(self._errors) > _MOST
        ):
            await self._socket.send_bytes(self._framer.reset(event.stream))
            return
        await self._socket.send_bytes(self._framer.reply(event.stream))
        if kind == "error":
            self._errors[connection] = event.stream
        elif kind == "data":
            self._early[event.stream] = []
            work = self._connection(event.stream, connection, int(port))
            self._group.once(f"carry connection {connection} to port {port}", work)

    async def _received(self, event: Data) -> None:
        waiting = self._early.get(event.stream)
        if waiting is not None:
            waiting.append(event)
            if sum(len(one.data) for one in waiting) > _EARLY:
                raise ProtocolError("too much for a connection that is not made yet")
            return
        stream = self._data.get(event.stream)
        if stream is None:
            return
        try:
            if event.data:
                await stream.write(event.data)
            if event.ended:
                await stream.close_write()
        except OSError:
            await self._drop(event.stream)

    async def _connection(self, number: int, connection: str, port: int) -> None:
        """Carry what the pod sends until it ends."""
        problems: list[str] = []
        with boundary(f"port {port} of pod {self._place[1]}", lambda error: problems.append(repr(error))):
            try:
                with self._room.one() as room:
                    if not room:
                        raise Conflict(f"there are {self._room.most} {self._room.what} already")
                    await self._carry(number, port)
            except (PodwireError, OSError) as error:
                problems.append(str(error))
            finally:
                self._early.pop(number, None)
                self._data.pop(number, None)
        told = [f"error forwarding port {port} to pod {self._place[1]}: {one}" for one in problems]
        with boundary("the end of a forwarded connection"):
            try:
                if connection in self._errors:
                    frame = self._framer.data(self._errors.pop(connection), "".join(told).encode(), end=True)
                    await self._socket.send_bytes(frame)
                await self._socket.send_bytes(self._framer.data(number, b"", end=True))
            except ConnectionError:
                return  # kubectl went away

    async def _carry(self, number: int, port: int) -> None:
        async with _connected(self._runtime, *self._place, port) as stream:
            self._data[number] = stream
            for event in self._early.pop(number, []):
                await self._received(event)
            while data := await stream.read():
                await self._socket.send_bytes(self._framer.data(number, data))

    async def _drop(self, number: int) -> None:
        stream = self._data.pop(number, None)
        if stream is not None:
            await stream.close()


@asynccontextmanager
async def _connected(runtime: PodRuntime, namespace: str, pod: str, port: int) -> AsyncIterator[PortStream]:
    stream = await runtime.port_forward(namespace, pod, port)
    try:
        yield stream
    finally:
        await stream.close()
