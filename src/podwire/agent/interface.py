"""What the local socket needs of a node: the seam between `agent.server` and `agent.wiring`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from podwire.base.attempts import Attempts
from podwire.base.config import AgentConfig
from podwire.base.telemetry import Metrics
from podwire.state.tables import EndpointRow
from podwire.state.views import ReadTables

# What `Node.bpf_dump` is asked for; agent.dumps makes the rows.
DUMPS: dict[str, str] = {
    "lb": "frontends with their backends, as the kernel holds them",
    "ct": "connections",
    "policy": "policy entries, with the rule that made each",
    "ipcache": "who is behind an address, as the kernel holds it",
}

# By dump: the filters that its query may have (agent.dumps.wanted); rows that do not match are never made.
FILTERS: dict[str, tuple[str, ...]] = {
    "lb": ("pod", "address", "port", "protocol"),
    "ct": ("endpoint", "pod", "address", "port", "protocol"),
    "policy": ("endpoint", "pod", "port", "protocol"),
    "ipcache": ("pod", "address"),
}

OK, WARNING, FAILURE, DISABLED = "Ok", "Warning", "Failure", "Disabled"  # states of a component


class Addresses(msgspec.Struct, frozen=True):
    """What was allocated. `expires` names what takes the addresses back if nobody attaches them."""

    ipv4: str = ""
    ipv6: str = ""
    expires: str = ""


class EndpointRequest(msgspec.Struct, frozen=True):
    """A pod to attach. With `host_interface` the caller has made the pair of devices already (as
    Cilium's CNI plugin does); without, the node makes it."""

    container_id: str
    netns: str  # path of its network namespace
    interface: str  # its device in there
    namespace: str
    pod: str
    uid: str = ""
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    host_interface: str = ""
    host_mac: str = ""
    ifindex: int = 0  # of host_interface


class Facts(msgspec.Struct, frozen=True):
    """What is so on a node now, beside its tables and its configuration: asked of whoever knows."""

    attach_mode: str  # tcx | tc (filters): how programs are on their devices
    socket_services: bool  # the socket programs are on the cgroup
    pod_device: str  # kind of a pod's device as the kernel says; before there is one, of what is made
    segments: tuple[
        int, int, int, int
    ]  # of the node's device: GSO, GRO, both for IPv4 at most; 0 = not known
    maps: Mapping[str, int]  # name → entries at most; maps grow
    route_mtu: int
    ring_bytes: int
    flows: int  # stored
    flows_at_most: int
    flows_seen: int
    uptime: float  # s
    lost: int  # events of the datapath that found the ring full
    unknown: int  # records of another size than ours
    watched: tuple[str, ...]  # kinds of objects whose changes are followed


class Node(Protocol):
    """One node's agent, as its socket shows it. Errors are podwire.base.errors."""

    config: AgentConfig

    @property
    def tables(self) -> ReadTables: ...

    async def allocate(self, owner: str, family: str, expiration: bool) -> Addresses:
        """Addresses for `owner`; `family` is ipv4, ipv6 or empty for what the node has."""
        ...

    async def release(self, address: str) -> None:
        """Give an address back; NotFound if nobody has it."""
        ...

    def allocations(self) -> Mapping[str, str]:
        """Address → owner, of this node's pods."""
        ...

    async def attach(self, request: EndpointRequest) -> EndpointRow:
        """Plumb a pod; all or nothing. The same container again is no error."""
        ...

    async def detach(self, container_id: str) -> None:
        """Undo it; NotFound if there is no such endpoint."""
        ...

    def mtu(self) -> int:
        """Of pods' devices."""
        ...

    def facts(self) -> Facts:
        """What is so now."""
        ...

    def status(self) -> Mapping[str, tuple[str, str]]:
        """Component → (state, message). At least `kubernetes`, `datapath` and `hubble`."""
        ...

    def controllers(self) -> Mapping[str, Attempts]:
        """Task → how what it does again and again has come out so far."""
        ...

    def bpf_dump(self, name: str, query: Mapping[str, str]) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """The rows of one of DUMPS, read from the kernel now, some after others. InvalidObject, before
        the first of them, for a query that is not as FILTERS says."""
        ...

    def metrics(self) -> Metrics:
        """Read when they are asked for."""
        ...

    async def explain(self, uuid: str) -> Mapping[str, Any]:
        """Why the flow was allowed or dropped; NotFound if it is not (or no longer) known."""
        ...

    def subscribe_events(self) -> AbstractAsyncContextManager[AsyncIterator[Mapping[str, Any]]]:
        """Flows as they come, as mappings that JSON can hold."""
        ...
