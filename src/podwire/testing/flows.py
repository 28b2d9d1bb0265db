"""Synthetic flows: a small world of tables and events of it, for tests and benchmarks of the way up.

The ring is a list in memory with the interface of `podwire.bpf.events.Ring`; everything after it is
the real thing.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.abi.dtypes import EVENT
from podwire.abi.enums import EventFlags, EventKind
from podwire.base import addresses
from podwire.model.labels import canonical
from podwire.model.rule import Direction, Origin
from podwire.state.tables import (
    BackendRow,
    EndpointRow,
    FrontendRow,
    IdentityRow,
    IpcacheRow,
    NodeRow,
    PodRow,
    RemoteEndpointRow,
    RuleRow,
    Tables,
)

Records = NDArray[Any]
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
ALLOWED, DENIED, DEFAULT_DENIED = 101, 102, 103

# name → (endpoint id, identity, IPv4, IPv6, workload)
PODS: dict[str, tuple[int, int, str, str, str]] = {
    "frontend": (11, 1001, "10.0.1.1", "fd00::1:1", ""),
    "backend-7d4b9-x1": (12, 1002, "10.0.1.2", "fd00::1:2", "backend"),
    "backend-7d4b9-x2": (0, 1002, "10.0.2.2", "fd00::2:2", "backend"),
    "unauthorized": (14, 1003, "10.0.1.4", "fd00::1:4", ""),
}
SERVICE = "10.96.0.10"


class MemoryRing:
    """Records that were emitted and not read; `emit` numbers them as the kernel does.

    `capacity` records fit; what finds it full is counted and gone.
    """

    def __init__(self, *, cpus: int = 2, capacity: int = 1 << 62) -> None:
        self._waiting: list[Records] = []
        self._capacity = capacity
        self._emitted = np.zeros(cpus, dtype="u8")
        self._lost = np.zeros(cpus, dtype="u8")
        self._fd, self._wake = os.pipe()

    def emit(self, records: Records, cpu: int = 0) -> None:
        records = records.copy()
        records["cpu"] = cpu
        records["sequence"] = int(self._emitted[cpu]) + 1 + np.arange(len(records))
        self._emitted[cpu] += np.uint64(len(records))
        room = max(0, self._capacity - sum(map(len, self._waiting)))
        self._lost[cpu] += np.uint64(max(0, len(records) - room))
        if room and len(records):
            self._waiting.append(records[:room])
            os.write(self._wake, b"x")

    def read(self, most: int = 8192) -> Records:
        if not self._waiting:
            return np.empty(0, dtype=EVENT)
        first = self._waiting.pop(0)
        if len(first) > most:
            self._waiting.insert(0, first[most:])
        elif not self._waiting:
            os.read(self._fd, 1 << 16)
        return first[:most]

    def waiting(self) -> int:
        return sum(records.nbytes for records in self._waiting)

    def statistics(self) -> list[tuple[int, int]]:
        return list(zip(self._emitted.tolist(), self._lost.tolist(), strict=True))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._wake)


def tables() -> Tables:
    """Namespace prod with the pods of `PODS`, a service, three rules, two nodes."""
    made = Tables()
    for name, (endpoint, number, ipv4, ipv6, workload) in PODS.items():
        labels = canonical(
            [
                f"k8s:app={workload or name}",
                "k8s:io.kubernetes.pod.namespace=prod",
                "k8s:io.cilium.k8s.policy.cluster=default",
            ]
        )
        made.identities.put(IdentityRow(number, labels, "cluster"))
        kind = "Deployment" if workload else ""
        if endpoint:
            made.pods.put(_pod(name, (ipv4, ipv6), kind, workload))
        else:
            made.remote_endpoints.put(
                RemoteEndpointRow(
                    *("prod", name, number, (ipv4, ipv6), "192.168.7.2"),
                    workload_kind=kind,
                    workload_name=workload,
                )
            )
        made.ipcache.put(IpcacheRow(addresses.exact(ipv4), number, "pod", namespace="prod", pod=name))
        if endpoint:
            made.endpoints.put(_endpoint(endpoint, name, number, ipv4, ipv6, labels))
    made.ipcache.put(IpcacheRow("0.0.0.0/0", 2, "world"))
    made.nodes.put(NodeRow("n1", ("192.168.7.1",), ("10.0.1.0/24",), {"role": "worker"}, True))
    made.nodes.put(NodeRow("n2", ("192.168.7.2",), ("10.0.2.0/24",), {"role": "worker"}, False))
    made.backends.put(BackendRow(1, "10.0.1.2", 8080, TCP, "active"))
    made.backends.put(BackendRow(2, "10.0.2.2", 8080, TCP, "active"))
    made.frontends.put(FrontendRow(SERVICE, 80, TCP, "prod", "backend", "http", "ClusterIP", 1, 1, (1, 2)))
    policy = Origin("CiliumNetworkPolicy", "prod", "backend", "uid-policy")
    made.rules.put(RuleRow(ALLOWED, Direction.INGRESS, (policy,), "spec.ingress[0]", False))
    made.rules.put(RuleRow(DENIED, Direction.EGRESS, (policy,), "spec.egressDeny[0]", False))
    made.rules.put(RuleRow(DEFAULT_DENIED, Direction.INGRESS, (policy,), "", True))
    return made


def _pod(name: str, held: tuple[str, ...], kind: str, workload: str) -> PodRow:
    return PodRow(
        namespace="prod",
        name=name,
        uid=f"uid-{name}",
        node="n1",
        addresses=held,
        labels={"app": workload or name},
        service_account="default",
        host_network=False,
        phase="Running",
        ports=(),
        workload_kind=kind,
        workload_name=workload,
    )


def _endpoint(
    number: int, name: str, identity: int, ipv4: str, ipv6: str, labels: tuple[str, ...]
) -> EndpointRow:
    return EndpointRow(
        id=number,
        namespace="prod",
        pod=name,
        uid=f"uid-{name}",
        container_id=f"c-{name}",
        netns="",
        interface=f"pw{number}",
        ifindex=0,
        mac="",
        host_mac="",
        ipv4=ipv4,
        ipv6=ipv6,
        labels=labels,
        identity=identity,
        ports=(),
        state="ready",
    )


def event(**fields: Any) -> Records:
    """One record: TCP from frontend to a backend, seen to-endpoint, unless said otherwise.

    Addresses are text; any member of `struct event` may be given.
    """
    record = np.zeros(1, dtype=EVENT)
    source = fields.pop("source", "10.0.1.1")
    destination = fields.pop("destination", "10.0.1.2")
    original = fields.pop("original", "")
    for name, address in (("source", source), ("destination", destination), ("original", original)):
        if address:
            record[name] = np.frombuffer(addresses.pack(address), dtype="u1")
    defaults: dict[str, Any] = {
        "kind": EventKind.TRACE,
        "protocol": TCP,
        "source_port": 40000,
        "destination_port": 8080,
        "source_identity": 1001,
        "destination_identity": 1002,
        "source_endpoint": 11,
        "destination_endpoint": 12,
        "direction": Direction.INGRESS,
        "source_mac": np.frombuffer(b"\x02\x00\x00\x00\x00\x01", dtype="u1"),
        "destination_mac": np.frombuffer(b"\x02\x00\x00\x00\x00\x02", dtype="u1"),
        "flags": EventFlags.IPV6 if ":" in source + destination else 0,
        "length": 74,
    }
    for name, value in (defaults | fields).items():
        record[name] = value
    return record


def joined(events: list[Records]) -> Records:
    """One array of several; np.concatenate would drop the padding of the struct."""
    records = np.empty(sum(map(len, events)), dtype=EVENT)
    at = 0
    for each in events:
        records[at : at + len(each)] = each
        at += len(each)
    return records


def sample() -> Records:
    """One of each kind worth looking at, a second apart from boot on."""
    known, reply = int(EventFlags.REPLY_KNOWN), int(EventFlags.REPLY_KNOWN | EventFlags.REPLY)
    answer = {"source": "10.0.1.2", "destination": "10.0.1.1", "source_port": 8080, "destination_port": 40000}
    answer |= {"source_identity": 1002, "destination_identity": 1001}
    answer |= {"source_endpoint": 12, "destination_endpoint": 11}
    stranger = {"source": "10.0.1.4", "source_identity": 1003, "source_endpoint": 14}
    world = {"destination": "198.51.100.7", "destination_identity": 2, "destination_endpoint": 0}
    socket = {"kind": 7, "source_port": 0, "source_mac": 0, "destination_mac": 0, "length": 0}
    unknown = {"destination_identity": 0, "destination_endpoint": 0}
    events = [
        event(**socket, point=1, destination=SERVICE, destination_port=80, **unknown),
        event(**socket, point=2, cookie=99, cgroup=7),
        event(kind=5, point=1, rule=ALLOWED, match=2, tcp_flags=2),
        event(tcp_flags=2, flags=known, reason=1, rule=ALLOWED),
        event(**answer, tcp_flags=18, flags=reply, reason=3),
        event(**stranger, kind=5, point=2, reason=133, rule=DEFAULT_DENIED, tcp_flags=2),
        event(**stranger, kind=1, reason=133, rule=DEFAULT_DENIED, tcp_flags=2),
        event(**world, kind=1, reason=181, rule=DENIED, direction=2, protocol=UDP, destination_port=53),
        event(protocol=ICMP, icmp_type=8, source_port=0, destination_port=0, flags=known, reason=1),
        event(
            source="fd00::1:1",
            destination="fd00::1:2",
            protocol=ICMPV6,
            icmp_type=129,
            flags=int(EventFlags.IPV6) | reply,
            reason=3,
            point=5,
        ),
        event(kind=1, reason=222, source="", destination="", protocol=0, source_endpoint=0),
        event(original=SERVICE, original_port=80, flags=known, reason=2, tcp_flags=24, point=4),
    ]
    records = joined(events)
    records["time"] = (1 + np.arange(len(records))) * 1_000_000_000
    return records
