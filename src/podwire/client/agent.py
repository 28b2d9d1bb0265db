"""The agent's local socket, seen from a client: blocking for the CLI and the CNI plugin, and the
same for asyncio.

Errors are podwire's own: a missing agent is Unreachable, a socket that may not be opened
NotPermitted, and what the agent refuses is what it refused (NotFound, Conflict, InvalidObject …).
`asyncio` is imported only by who uses `AsyncAgentClient`: it costs a good part of `podwire status`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from podwire.base.errors import NotPermitted, PodwireError, Unreachable
from podwire.client import http

if TYPE_CHECKING:
    import asyncio

TIMEOUT = 30.0  # s for a whole answer


class Addresses(msgspec.Struct, frozen=True):
    """What a pod was given. Empty = none of that family; `expires` is set where the addresses are
    taken back unless the pod is attached soon."""

    ipv4: str = ""
    ipv6: str = ""
    gateway4: str = ""
    gateway6: str = ""
    expires: str = ""


class AgentClient:
    """One agent. Each call is a connection of its own. `node` names the agent in errors."""

    def __init__(self, socket_path: str | Path, *, node: str = "", timeout: float = TIMEOUT) -> None:
        self.path = str(socket_path)
        self.node = node
        self.timeout = timeout

    def get(self, path: str, **query: str) -> Any:
        """The JSON (or text) at `path`; parts that come from outside are made with `http.part`."""
        return self.call("GET", path, query)

    def allocate(self, owner: str, family: str = "") -> Addresses:
        """Addresses for `owner` (``namespace/pod``); `family` ipv4, ipv6 or empty for what the node has."""
        return addresses_of(self.call("POST", *_allocation(owner, family)))

    def release(self, address: str) -> None:
        self.call("DELETE", f"/v1/ipam/{address}", {})

    def attach(self, **request: str) -> dict[str, Any]:
        """Attach a pod; see `attachment` for what to give. The endpoint as the agent shows it."""
        return self.call("PUT", "/v1/endpoint/cilium-local:0", {}, attachment(**request))  # type: ignore[no-any-return]

    def detach(self, container_id: str) -> None:
        """Detach a pod; NotFound if the agent does not know it."""
        self.call("DELETE", "/v1/endpoint", {}, {"container-id": container_id})

    def stream(self, path: str, **query: str) -> Iterator[Any]:
        """JSON lines, for ever or until the agent ends."""
        with self._connected(timeout=None) as connection:
            connection.sendall(http.request("GET", path, query, {}, None))
            with connection.makefile("rb") as answer:
                head = http.head(_read_head(answer))
                if head.status >= 400:
                    raise http.failure(head, answer.read())
                for line in answer:
                    if line.strip() and line.endswith(b"\n"):  # else the agent ended in the middle of it
                        yield json.loads(line)

    def rows(self, path: str, **query: str) -> Iterator[bytes]:
        """The items of a list as JSON, as they come; Unreachable if the list ends before its end."""
        with self._connected(timeout=self.timeout) as connection:
            connection.sendall(http.request("GET", path, query, {}, None))
            with connection.makefile("rb") as answer:
                head = http.head(_read_head(answer))
                if head.status >= 400:
                    raise http.failure(head, answer.read())
                yield from http.items(answer)

    def call(self, method: str, path: str, query: dict[str, str], body: Any = None) -> Any:
        with self._connected(timeout=self.timeout) as connection:
            connection.sendall(http.request(method, path, query, _headers(method), body))
            with connection.makefile("rb") as answer:
                return http.content(http.head(_read_head(answer)), answer.read())

    @contextmanager
    def _connected(self, timeout: float | None) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(self.path)
                yield connection
            except OSError as error:
                raise self.explained(error) from error

    def explained(self, error: OSError) -> PodwireError:
        return explained(error, self.path, self.node)


class AsyncAgentClient:
    """`AgentClient` for asyncio."""

    def __init__(self, socket_path: str | Path, *, node: str = "", timeout: float = TIMEOUT) -> None:
        self.path = str(socket_path)
        self.node = node
        self.timeout = timeout

    async def get(self, path: str, **query: str) -> Any:
        return await self.call("GET", path, query)

    async def allocate(self, owner: str, family: str = "") -> Addresses:
        return addresses_of(await self.call("POST", *_allocation(owner, family)))

    async def release(self, address: str) -> None:
        await self.call("DELETE", f"/v1/ipam/{address}", {})

    async def attach(self, **request: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.call(
            "PUT", "/v1/endpoint/cilium-local:0", {}, attachment(**request)
        )
        return answer

    async def detach(self, container_id: str) -> None:
        await self.call("DELETE", "/v1/endpoint", {}, {"container-id": container_id})

    async def call(self, method: str, path: str, query: dict[str, str], body: Any = None) -> Any:
        import asyncio

        try:
            async with asyncio.timeout(self.timeout):
                reader, writer = await asyncio.open_unix_connection(self.path, limit=http.HEAD_LIMIT)
                try:
                    writer.write(http.request(method, path, query, _headers(method), body))
                    return await self._answer(reader)
                finally:
                    writer.close()
        except OSError as error:  # also TimeoutError
            raise explained(error, self.path, self.node) from error

    async def _answer(self, reader: asyncio.StreamReader) -> Any:
        import asyncio

        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Unreachable("the agent ended before it answered", hint="see its log") from error
        return http.content(http.head(head[:-4]), await reader.read(-1))


def attachment(
    *,
    container_id: str,
    netns: str,
    namespace: str,
    pod: str,
    uid: str = "",
    interface: str = "eth0",
    ipv4: str = "",
    ipv6: str = "",
) -> dict[str, Any]:
    """The body that attaches a pod: `netns` is the path of its network namespace, `interface` the
    name its device gets in there; the agent makes the pair of devices."""
    return {
        "container-id": container_id,
        "container-netns-path": netns,
        "container-interface-name": interface,
        "k8s-namespace": namespace,
        "k8s-pod-name": pod,
        "k8s-uid": uid,
        "addressing": {"ipv4": ipv4, "ipv6": ipv6},
        "sync-build-endpoint": True,
    }


def addresses_of(answer: Any) -> Addresses:
    """An IPAM answer in Cilium's shape → Addresses."""
    given = answer.get("address") or {}
    ipv4, ipv6 = answer.get("ipv4") or {}, answer.get("ipv6") or {}
    return Addresses(
        ipv4=given.get("ipv4", ""),
        ipv6=given.get("ipv6", ""),
        gateway4=ipv4.get("gateway", ""),
        gateway6=ipv6.get("gateway", ""),
        expires=ipv4.get("expiration-uuid") or ipv6.get("expiration-uuid") or "",
    )


def explained(error: OSError, path: str, node: str) -> PodwireError:
    """What a failed connection means to a person."""
    who = f"the agent of node {node}" if node else "the agent"
    match error:
        case TimeoutError():
            return Unreachable(f"{who} did not answer in time", hint="see its log")
        case PermissionError():
            return NotPermitted(
                f"only root may talk to {who} (socket {path})",
                hint="run the command as root, with sudo for example",
            )
        case FileNotFoundError() | ConnectionRefusedError():
            why = "there is no socket" if isinstance(error, FileNotFoundError) else "nothing listens on"
            return Unreachable(
                f"{who} is not running: {why} {path}",
                hint="`podwire sandbox list` shows what runs; --socket names another socket",
            )
        case _:
            return Unreachable(f"{who} cannot be reached on {path}: {error.strerror or error}")


def _allocation(owner: str, family: str) -> tuple[str, dict[str, str]]:
    return "/v1/ipam", {"owner": owner} | ({"family": family} if family else {})


def _headers(method: str) -> dict[str, str]:
    return {"Expiration": "true"} if method == "POST" else {}


def _read_head(answer: Any) -> bytes:
    raw = bytearray()
    while len(raw) < http.HEAD_LIMIT:
        line = answer.readline(http.HEAD_LIMIT)
        if line in (b"\r\n", b""):
            break
        raw += line
    return bytes(raw).removesuffix(b"\r\n")
