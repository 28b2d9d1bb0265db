"""The design's targets: what they demand, which figure answers, and what is not measured yet.

A figure is named `NAME: METRIC` as in the rows (`measure.Row.key`); `ratio` says whether the
target is about the ratio or about the value. A target whose figures are missing is printed with
the reason, never left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from measure import Row


@dataclass(frozen=True)
class Target:
    section: str
    what: str
    figure: str  # Row.key
    limit: float
    unit: str = "×"
    at_least: bool = False
    ratio: bool = False
    not_yet: str = ""  # why nothing measures this yet

    @property
    def demand(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g} {self.unit}"


@dataclass(frozen=True)
class Verdict:
    target: Target
    measured: float | None
    verdict: str  # met, not met, or why there is none


TARGETS: tuple[Target, ...] = (
    Target(
        "paths", "pod to pod on a node, TCP_RR p50, of routed veth", "podwire same node: rr", 0.97, ratio=True
    ),
    Target(
        "paths",
        "pod to pod on a node, stream, of routed veth",
        "podwire same node: stream",
        1.0,
        ratio=True,
        at_least=True,
    ),
    Target(
        "paths",
        "pod to pod of another node, TCP_RR p50, of routed veth through two nodes",
        "podwire other node: rr",
        1.02,
        ratio=True,
    ),
    Target(
        "paths",
        "pod to pod of another node, stream, of routed veth through two nodes",
        "podwire other node: stream",
        0.98,
        ratio=True,
        at_least=True,
    ),
    Target(
        "paths",
        "pod to pod of another node by VXLAN, TCP_RR p50, of the kernel's VXLAN",
        "podwire other node, VXLAN: rr",
        0.97,
        ratio=True,
    ),
    Target(
        "paths",
        "pod to pod of another node by VXLAN, stream, of the kernel's VXLAN",
        "podwire other node, VXLAN: stream",
        1.03,
        ratio=True,
        at_least=True,
    ),
    Target(
        "paths",
        "the same with socket acceleration, RR, of loopback",
        "podwire accelerated: rr",
        0.60,
        ratio=True,
        not_yet="socket acceleration (sockmap) is a later feature of this design",
    ),
    Target(
        "paths",
        "connect() to a ClusterIP, 1 service, of direct",
        "podwire service 1: connect",
        1.02,
        ratio=True,
    ),
    Target(
        "paths",
        "connect() to a ClusterIP, 1k services, of direct",
        "podwire service 1k: connect",
        1.02,
        ratio=True,
    ),
    Target(
        "paths",
        "connect() to a ClusterIP, 10k services, of direct",
        "podwire service 10k: connect",
        1.02,
        ratio=True,
    ),
    Target(
        "asked",
        "20 pod changes/s elsewhere, 100k packets/s here: packets that ask policy again",
        "asked: packets that ask again",
        1,
        "%",
    ),
    Target(
        "sockets",
        "connect() to a ClusterIP, random ones of 30k services, of direct by loopback",
        "sockets: connect, random of 30k services × 3: of direct",
        1.02,
    ),
    Target(
        "packets",
        "per packet: established flow, from a pod",
        "packets: established, pod to another node, policy",
        150,
        "ns",
    ),
    Target(
        "packets",
        "per packet: established flow, to a pod",
        "packets: established, network to pod, policy",
        150,
        "ns",
    ),
    Target(
        "packets", "per packet: policy decision, hot", "packets: policy decision, 1 identities", 120, "ns"
    ),
    Target(
        "packets",
        "per packet: policy decision, 64k random identities",
        "packets: policy decision, 65536 identities",
        150,
        "ns",
    ),
    Target(
        "packets",
        "per packet: new flow, whole",
        "packets: new flow whole, pod to another node, policy",
        380,
        "ns",
    ),
    Target(
        "packets", "per packet: load balancing, 1 service", "packets: load balancing, 1 service", 200, "ns"
    ),
    Target(
        "packets",
        "per packet: load balancing, hot service of 30k",
        "packets: load balancing, hot service of 30000",
        200,
        "ns",
    ),
    Target(
        "packets",
        "per packet: whole walk, random services of 30k",
        "packets: whole walk, random services of 30000",
        450,
        "ns",
    ),
    Target(
        "packets",
        "per packet: XDP prefilter, small list",
        "packets: xdp",
        40,
        "ns",
        not_yet="the XDP program is a later feature of this design",
    ),
    Target(
        "services",
        "5,000 services × 10 endpoints, cold, CPU, of kube-proxy",
        "services: cpu, from nothing",
        3.9,
        "s",
    ),
    Target(
        "services", "one endpoint changed → in the map, p99", "services: one endpoint changed, p99", 20, "ms"
    ),
    Target("start", "100k pods on 5,000 nodes: what is local forwards", "start: local forwards", 5, "s"),
    Target("start", "the same, agent memory at most", "start: rss", 400, "MiB"),
    Target("start", "the same, memory of a remote pod", "start: rss of a remote pod", 3, "KiB"),
    Target("start", "the same, longest step of the loop, CPU", "start: longest step", 100, "ms"),
    Target("control", "1,000 rules × 3,000 identities resolved", "policy 1k × 3k: resolve", 2.15, "ms"),
    Target("control", "one identity added", "policy 1k × 3k: add identity", 0.2, "ms"),
    Target(
        "changes", "200 selectors × 20k identities: one added", "select 200 × 20k: identity added", 1, "ms"
    ),
    Target(
        "changes",
        "200 selectors × 20k identities: one removed",
        "select 200 × 20k: identity removed",
        1,
        "ms",
    ),
    Target("changes", "200 selectors × 20k identities: from nothing", "select 200 × 20k: start", 3, "s"),
    Target(
        "changes",
        "200 selectors × 20k identities: from nothing, longest step",
        "select 200 × 20k: start, longest step",
        100,
        "ms",
    ),
    Target(
        "changes",
        "10k policies, 200 endpoints: one that selects all changes",
        "policy 10k × 200 endpoints: one changes",
        300,
        "ms",
    ),
    Target(
        "changes",
        "10k policies, 200 endpoints: longest step",
        "policy 10k × 200 endpoints: one changes, longest step",
        100,
        "ms",
    ),
    Target("changes", "100 policies × 10k peers: Python, a peer", "peers 100 × 10k: python", 40, "B"),
    Target("control", "pods attached per second", "attach: rate", 40, "/s", at_least=True),
    Target("control", "pod attached, p99", "attach: p99", 50, "ms"),
    Target("control", "agent memory, idle", "agent: rss idle", 120, "MiB"),
    Target("control", "agent memory, 1,000 services / 10,000 endpoints", "agent: rss loaded", 250, "MiB"),
    Target(
        "flows",
        "flows read and stored",
        "flows: pods, ports new in each event",
        500_000,
        "events/s",
        at_least=True,
    ),
    Target("flows", "a flow's message, whole", "flows: message, whole", 8_000, "ns/flow"),
    Target(
        "flows", "a flow's message, as hubble prints", "flows: message, as hubble prints", 5_000, "ns/flow"
    ),
    Target(
        "naming",
        "30k services × 10, one endpoint changes: name right",
        "naming: services: one endpoint changed, name right, longest",
        100,
        "ms",
    ),
    Target(
        "naming",
        "the same, longest step under 100k flows/s",
        "naming: services: longest step under flows",
        20,
        "ms",
    ),
    Target("dumps", "1M connections listed, the loop held, p99", "dumps: 1000000: loop held, p99", 20, "ms"),
    Target("dumps", "the same, memory of the agent at most", "dumps: 1000000: memory at most", 40, "MiB"),
    Target("naming", "the same, longest step at start", "naming: services: start, longest step", 20, "ms"),
    Target(
        "naming",
        "flows stored while 20 pods change a second",
        "naming: names: 20 pods change a second",
        500_000,
        "events/s",
        at_least=True,
    ),
    Target(
        "flows",
        "flows, cost on connect-request-close",
        "flows: crr cost",
        3,
        "%",
        not_yet="an agent always reads flows in this version: there is nothing to compare with",
    ),
    Target(
        "flows",
        "100M flows on disk queried",
        "history: query",
        1,
        "s",
        not_yet="flow history on disk is a later feature of this design",
    ),
    Target("control", "sandbox up, 2 nodes 3 pods", "sandbox: up", 3, "s"),
    Target("control", "podwire status", "cli: status", 150, "ms"),
    Target(
        "control",
        "CNI plugin, own time",
        "cni: add",
        30,
        "ms",
        not_yet="the CNI plugin is a later feature of this design",
    ),
)


def judge(rows: Sequence[Row], failures: Mapping[str, str], sections: Collection[str]) -> list[Verdict]:
    """The targets of the sections that ran, against the rows; `failures`: what gave no rows, and why."""
    by_key = {row.key: row for row in rows}
    return [_judge(target, by_key, failures) for target in TARGETS if target.section in sections]


def _judge(target: Target, by_key: Mapping[str, Row], failures: Mapping[str, str]) -> Verdict:
    row = by_key.get(target.figure)
    measured = None if row is None else row.ratio if target.ratio else row.value
    if measured is not None:
        good = measured >= target.limit if target.at_least else measured <= target.limit
        return Verdict(target, measured, "met" if good else "not met")
    if target.not_yet:
        return Verdict(target, None, target.not_yet)
    name = target.figure.split(":")[0]
    failed = any(what == target.section or name.startswith(what) for what in failures)
    return Verdict(target, None, f"not measured ({'see below' if failed else 'not in a run of this length'})")
