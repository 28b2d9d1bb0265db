"""Startup, liveness and readiness probes, run from the node's network as a kubelet runs them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from podwire.base.errors import NetworkError, NotFound
from podwire.net import namespaces

Object = dict[str, Any]
Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]
KINDS = ("startupProbe", "livenessProbe", "readinessProbe")


class Target(msgspec.Struct, frozen=True):
    """Where a container answers: the namespace to probe from, its address, its named ports."""

    netns: Path
    address: str
    ports: dict[str, int]

    def port(self, given: int | str) -> int:
        if isinstance(given, int):
            return given
        if given in self.ports:
            return self.ports[given]
        raise ProbeFailed(f"there is no container port named {given}")


class ProbeFailed(Exception):
    """Why, as it stands in the Event."""


class Timing(msgspec.Struct, frozen=True, rename="camel"):
    initial_delay_seconds: float = 0
    period_seconds: float = 10
    timeout_seconds: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3


def timing(probe: Object) -> Timing:
    return msgspec.convert({key: value for key, value in probe.items() if value is not None}, Timing)


def unsupported(container: Object) -> str:
    """Which probe cannot be run here; empty if all can."""
    for kind in KINDS:
        probe = container.get(kind)
        if probe and not any(probe.get(action) for action in ("httpGet", "tcpSocket", "exec")):
            return f"{kind}: only httpGet, tcpSocket and exec probes are supported in a sandbox"
    return ""


async def once(probe: Object, target: Target, run: Exec) -> None:
    """One try; ProbeFailed says why it did not succeed."""
    timeout = timing(probe).timeout_seconds
    try:
        async with asyncio.timeout(timeout):
            if probe.get("httpGet"):
                await _http(probe["httpGet"], target)
            elif probe.get("tcpSocket"):
                wanted = probe["tcpSocket"]
                sock = await _connect(
                    target, wanted.get("host") or target.address, target.port(wanted["port"])
                )
                sock.close()
            else:
                code, output = await run(list(probe["exec"].get("command") or []), timeout)
                if code:
                    raise ProbeFailed(output.strip() or f"exit code {code}")
    except TimeoutError as error:
        raise ProbeFailed(f"no answer within {timeout:g} s") from error
    except (OSError, NetworkError, NotFound) as error:
        raise ProbeFailed(str(error)) from error
    except ProbeFailed:
        raise
    except Exception as error:  # the boundary of one try: whatever a pod answers is its probe's failure
        raise ProbeFailed(f"{type(error).__name__}: {error}") from error


async def watch(probe: Object, target: Target, run: Exec, report: Callable[[bool, str], None]) -> None:
    """Try for ever; `report` hears each change of mind (success or failure past its threshold).

    The first report of a failure comes at the failure threshold, that of a success at the success
    threshold; after a failure every further threshold of failures is reported again. At most one
    failure is counted in a period, however often it is tried.
    """
    times = timing(probe)
    now = asyncio.get_running_loop().time
    await asyncio.sleep(times.initial_delay_seconds)
    good = bad = tries = 0
    next_counts = 0.0
    while True:
        tries += 1
        try:
            await once(probe, target, run)
        except ProbeFailed as failure:
            good = 0
            if now() >= next_counts:
                bad, next_counts = bad + 1, now() + times.period_seconds * 0.95
                if bad % times.failure_threshold == 0:
                    report(False, str(failure))
        else:
            good, bad, next_counts = good + 1, 0, 0.0
            if good == times.success_threshold:
                report(True, "")
        # Until the first success tries come quickly: a server is probed as soon as it can listen.
        quick = good == 0 and tries < 20 and "initialDelaySeconds" not in probe
        await asyncio.sleep(min(0.1, times.period_seconds) if quick else times.period_seconds)


async def _connect(target: Target, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = namespaces.open_socket(str(target.netns), family)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _http(wanted: Object, target: Target) -> None:
    host, port = wanted.get("host") or target.address, target.port(wanted["port"])
    sock = await _connect(target, host, port)
    context = None
    if wanted.get("scheme", "HTTP").upper() == "HTTPS":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as the kubelet does
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=context, server_hostname=host if context else None
    )
    try:
        path = wanted.get("path") or "/"
        given = {one["name"].lower(): one["value"] for one in wanted.get("httpHeaders") or []}
        headers = {
            "host": f"{host}:{port}",
            "user-agent": "podwire-probe/1",
            "accept": "*/*",
            "connection": "close",
        }
        lines = [f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (headers | given).items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        first = (await reader.readline()).decode("latin-1").split()
    finally:
        writer.close()
    if len(first) < 2 or not first[1].isdigit():
        raise ProbeFailed("the answer is not HTTP")
    if not 200 <= int(first[1]) < 400:
        raise ProbeFailed(f"HTTP probe failed with statuscode: {first[1]}")
