"""exec, attach and logs: kubectl's WebSocket protocol on one side, the pods' runtime on the other.

Protocol ``v5.channel.k8s.io`` (and v4): each message begins with a channel: 0 stdin, 1 stdout,
2 stderr, 3 the outcome as a Status, 4 the terminal's size, 255 (v5) the end of a channel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from podwire.apiserver.objects import Objects
from podwire.apiserver.portforward import forward
from podwire.apiserver.status import StatusError, bad_request, conflict, too_many
from podwire.apiserver.streams import ExecStream, PodRuntime
from podwire.base.aio import Room, cancelling
from podwire.base.door import affordable
from podwire.base.errors import NotFound, PodwireError

log = logging.getLogger(__name__)
Object = dict[str, Any]
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _ERROR, _RESIZE, _END = 0, 3, 4, 255
_CHUNK = 32 * 1024
_LARGEST = 4 * 1024 * 1024
_STREAMS = 512  # at once; each exec is a process, each log that is followed is looked at all the time
_FORWARDED = 1024  # connections of all port-forwards
_DEFAULT = "kubectl.kubernetes.io/default-container"


class Remote:
    """Streams to pods for all requests of a server."""

    def __init__(self, objects: Objects, runtime: PodRuntime | None) -> None:
        self._objects = objects
        self._runtime = runtime
        self.room = Room("streams to pods", affordable(_STREAMS))
        self.forwarded = Room("forwarded connections", affordable(_FORWARDED))

    async def serve(
        self, request: web.BaseRequest, namespace: str, name: str, what: str
    ) -> web.StreamResponse:
        """One request for the subresource `what` of a pod."""
        pod = self._objects.get(self._objects.kind("pods"), namespace, name).object
        if self._runtime is None:
            raise StatusError(503, "ServiceUnavailable", "nothing runs pods behind this API server")
        if not pod["spec"].get("nodeName"):
            raise bad_request(f"pod {name} does not have a host assigned")
        try:
            with self.room.one() as room:
                if not room:
                    raise too_many(self.room.what, self.room.most)
                if what == "log":
                    return await self._log(request, pod, self._runtime)
                if what == "portforward":
                    return await forward(request, self._runtime, namespace, name, self.forwarded)
                return await self._exec(request, pod, what, self._runtime)
        except NotFound as error:
            raise StatusError(404, "NotFound", str(error)) from error
        except StatusError:
            raise
        except PodwireError as error:
            raise conflict("pods", "", name, str(error)) from error

    async def _exec(
        self, request: web.BaseRequest, pod: Object, what: str, runtime: PodRuntime
    ) -> web.StreamResponse:
        query = request.query
        stdin, tty = query.get("stdin") in ("true", "1"), query.get("tty") in ("true", "1")
        command = query.getall("command", [])
        if what == "exec" and not command:
            raise bad_request("exec needs a command")
        place = (
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
            container_of(pod, query.get("container")),
        )
        # After what is wrong with the request: kubectl tries SPDY when its first handshake is refused,
        # and shows the last answer.
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request("unable to upgrade: only WebSocket connections are served")
        socket = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=_LARGEST, autoping=True)
        if not socket.can_prepare(request).protocol:
            raise bad_request(f"supported protocols: {', '.join(_PROTOCOLS)}")
        await socket.prepare(request)
        try:
            if what == "exec":
                stream = await runtime.exec(*place, command, stdin=stdin, tty=tty)
            else:
                stream = await runtime.attach(*place, stdin=stdin, tty=tty)
        except Exception as error:  # the boundary of one stream: told in its own protocol
            # kubectl would try another protocol if the handshake failed, and hide what is wrong.
            if not isinstance(error, PodwireError):
                log.exception("%s in pod %s failed", what, place[1])
            await socket.send_bytes(bytes([_ERROR]) + msgspec.json.encode(failed(str(error) or repr(error))))
            await socket.close()
            return socket
        try:
            async with cancelling("read what the client sends", _input(socket, stream)):
                async for channel, data in stream.output():
                    for start in range(0, len(data), _CHUNK):
                        await socket.send_bytes(bytes([channel]) + data[start : start + _CHUNK])
                code = await stream.wait()
                await socket.send_bytes(bytes([_ERROR]) + msgspec.json.encode(outcome(code)))
                await socket.close()
        except ConnectionError:
            pass  # the client went away
        finally:
            await stream.close()
        return socket

    async def _log(self, request: web.BaseRequest, pod: Object, runtime: PodRuntime) -> web.StreamResponse:
        query = request.query
        pieces = runtime.logs(
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
            container_of(pod, query.get("container")),
            follow=query.get("follow") in ("true", "1"),
            tail_lines=_whole(query.get("tailLines"), "tailLines"),
            since_seconds=_whole(query.get("sinceSeconds"), "sinceSeconds"),
            since_time=query.get("sinceTime"),
            timestamps=query.get("timestamps") in ("true", "1"),
            previous=query.get("previous") in ("true", "1"),
            limit_bytes=_whole(query.get("limitBytes"), "limitBytes"),
        )
        first = await _next(pieces)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            while first is not None:
                await response.write(first)
                first = await _next(pieces)
            await response.write_eof()
        except ConnectionError:
            pass  # the client went away
        return response


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


async def _input(socket: web.WebSocketResponse, stream: ExecStream) -> None:
    """What the client sends, to the process; when the client goes, the process ends."""
    try:
        async for message in socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == _STDIN and data:
                await stream.write_stdin(data)
            elif channel == _RESIZE:
                await _resize(stream, data)
            elif channel == _END and data[:1] == bytes([_STDIN]):
                await stream.close_stdin()
    except (BrokenPipeError, ConnectionError):
        # The process reads no more; what it still writes goes on, and its end closes the socket.
        await asyncio.get_running_loop().create_future()
    await stream.close()


async def _resize(stream: ExecStream, data: bytes) -> None:
    try:
        size = msgspec.json.decode(data, type=dict[str, int])
    except msgspec.DecodeError:
        return
    columns, rows = size.get("Width", 0), size.get("Height", 0)
    if 0 < columns < 65536 and 0 < rows < 65536:
        await stream.resize(columns, rows)


def container_of(pod: Object, asked: str | None) -> str:
    """The container that is meant: the one asked for, the default one, or the first."""
    spec = pod["spec"]
    kinds = ("containers", "initContainers", "ephemeralContainers")
    names = [one["name"] for kind in kinds for one in spec.get(kind) or []]
    if not asked:
        asked = (pod["metadata"].get("annotations") or {}).get(_DEFAULT) or names[0]
    if asked not in names:
        raise bad_request(f"container {asked[:80]} is not valid for pod {pod['metadata']['name']}")
    return asked


def outcome(code: int) -> Object:
    """The Status that ends an exec."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(message: str) -> Object:
    """The Status of an exec that could not be started."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


def _whole(text: str | None, name: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise bad_request(f"{name} must be a whole number: {text[:40]}")
    return int(text)
