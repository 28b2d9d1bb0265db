"""Flows a test asks for: who, to whom, with which verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from podwire.base.errors import UsageError
from podwire.sandbox import connectivity


class Flow(msgspec.Struct, frozen=True):
    """One flow. `source` and `destination` are ``namespace/pod``, or the address of what is no pod."""

    uuid: str
    verdict: str  # FORWARDED | DROPPED | …
    drop_reason: str  # POLICY_DENIED, POLICY_DENY, …; empty for what was not dropped
    source: str
    destination: str
    protocol: str
    port: int
    node: str
    because: str  # the rule that decided: prod/backend ingress[0]; default deny (prod/backend)
    message: Any  # the flow as Hubble's API has it


def flow_of(message: Any) -> Flow:
    """A `Flow` of Hubble's flow message."""
    from podwire.api import flow_pb2

    kind = message.l4.WhichOneof("protocol") or ""
    layer = getattr(message.l4, kind) if kind else None
    dropped = message.verdict == flow_pb2.DROPPED
    return Flow(
        uuid=message.uuid,
        verdict=flow_pb2.Verdict.Name(message.verdict),
        drop_reason=_reason(message.drop_reason_desc) if dropped else "",
        source=_end(message.source, message.IP.source),
        destination=_end(message.destination, message.IP.destination),
        protocol=kind,
        port=int(getattr(layer, "destination_port", 0)),
        node=message.node_name,
        because=connectivity.because(message),
        message=message,
    )


def _reason(number: int) -> str:
    """The API's name; podwire's own reasons have numbers that it does not list."""
    from podwire.abi.enums import DropReason
    from podwire.api import flow_pb2

    if number in flow_pb2.DropReason.values():
        return flow_pb2.DropReason.Name(number)
    return DropReason(number).name


def _end(endpoint: Any, address: str) -> str:
    return f"{endpoint.namespace}/{endpoint.pod_name}" if endpoint.pod_name else str(address)


class Flows:
    """The flows of a sandbox since it was brought up (or since the last `Cluster.forget_flows`) that match.

    A pod is named as ``pod`` (of namespace default) or ``namespace/pod``. What is not given matches all.
    """

    def __init__(
        self,
        sandbox: str,
        since: float,
        *,
        source: str = "",
        destination: str = "",
        verdict: str = "",
        drop_reason: str = "",
        protocol: str = "",
        port: int = 0,
    ) -> None:
        self._sandbox, self._since = sandbox, since
        _check(verdict, drop_reason, protocol, port)
        wanted = {
            "source": _full(source),
            "destination": _full(destination),
            "verdict": verdict,
            "drop_reason": drop_reason,
            "protocol": protocol,
            "port": port,
        }
        self._wanted = {name: value for name, value in wanted.items() if value}

    async def all(self) -> list[Flow]:
        """Those there are now, oldest first."""
        read = await asyncio.to_thread(lambda: list(connectivity.read_flows(self._sandbox, self._since)))
        found = [flow_of(response.flow) for response in read]
        return [flow for flow in found if self._matches(flow)]

    async def first(self, timeout: float = 5.0) -> Flow:
        """The first one, waiting for it; TimeoutError says what was asked for."""
        deadline = time.monotonic() + timeout
        while True:
            if found := await self.all():
                return found[0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"no flow with {self._wanted or 'anything'} within {timeout:g} s")
            await asyncio.sleep(0.02)

    async def __aiter__(self) -> AsyncIterator[Flow]:
        for flow in await self.all():
            yield flow

    def _matches(self, flow: Flow) -> bool:
        return all(getattr(flow, name) == value for name, value in self._wanted.items())


def _check(verdict: str, drop_reason: str, protocol: str, port: int) -> None:
    """A name that no flow can have would match nothing, and a test that wants no flows would pass."""
    from podwire.abi.enums import DropReason
    from podwire.api import flow_pb2

    layers = [field.name for field in flow_pb2.Layer4.DESCRIPTOR.oneofs_by_name["protocol"].fields]
    reasons = [*flow_pb2.DropReason.keys(), *(one.name for one in DropReason)]
    for what, given, known in (
        ("verdict", verdict, flow_pb2.Verdict.keys()),
        ("drop_reason", drop_reason, reasons),
        ("protocol", protocol, layers),
    ):
        if given and given not in known:
            raise UsageError(f"no flow has {what} {given!r}", hint=f"one of {', '.join(known)}")
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} is not a port", hint="1 to 65535, or 0 for any")


def _full(name: str) -> str:
    """``n1p1`` → ``default/n1p1``; addresses and full names stay."""
    plain = name and "/" not in name and "." not in name and ":" not in name
    return f"default/{name}" if plain else name
