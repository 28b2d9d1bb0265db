"""The agent's metrics: read from the kernel's maps and the tables when somebody asks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from podwire.abi import enums
from podwire.abi.enums import DROP_TEXT, DropReason
from podwire.base.lag import Lag
from podwire.base.telemetry import Metrics
from podwire.datapath.conntrack import Conntrack
from podwire.datapath.maps import Maps
from podwire.state.views import ReadTables

SIDES = {enums.CtShare.OUT: "EGRESS", enums.CtShare.IN: "INGRESS"}
Usage = Callable[[], Mapping[str, tuple[int, int]]]  # map → entries, capacity
Samples = Iterable[tuple[dict[str, str], float]]


def declare(
    metrics: Metrics,
    tables: ReadTables,
    maps: Maps,
    used: Usage,
    flows: Callable[[], dict[str, float]],
    unwritten: Callable[[], Iterable[str]],
    lost: Callable[[], dict[str, float]],
    refused: Callable[[], int],
) -> None:
    """Declare all metrics of an agent. `used` is asked at each scrape, so it must not walk the maps.

    `unwritten`: the map of each row that is not in the kernel.
    """
    metrics.reading(
        "podwire_drop_count_total",
        "counter",
        "Packets dropped, by reason and direction",
        lambda: outcomes(maps, dropped=True, size=False),
    )
    metrics.reading(
        "podwire_drop_bytes_total",
        "counter",
        "Bytes of packets dropped, by reason and direction",
        lambda: outcomes(maps, dropped=True, size=True),
    )
    metrics.reading(
        "podwire_forward_count_total",
        "counter",
        "Packets forwarded, by direction",
        lambda: outcomes(maps, dropped=False, size=False),
    )
    metrics.reading(
        "podwire_forward_bytes_total",
        "counter",
        "Bytes forwarded, by direction",
        lambda: outcomes(maps, dropped=False, size=True),
    )
    metrics.reading(
        "podwire_bpf_map_entries",
        "gauge",
        "Entries in a map",
        lambda: usage(used, lambda entries, _: entries),
    )
    metrics.reading(
        "podwire_bpf_map_pressure",
        "gauge",
        "Entries in a map, as a share of its capacity",
        lambda: usage(used, lambda entries, capacity: entries / capacity),
    )
    metrics.reading(
        "podwire_bpf_map_unwritten",
        "gauge",
        "Rows that could not be written to a map",
        lambda: [({"map": name}, float(count)) for name, count in sorted(Counter(unwritten()).items())],
    )
    metrics.reading(
        "podwire_endpoint_state", "gauge", "Endpoints of this node by state", lambda: states(tables)
    )
    metrics.reading(
        "podwire_endpoint_denied_unknown",
        "gauge",
        "Endpoints that are denied peers the kernel may not know, because a map is full",
        lambda: restricted(tables),
    )
    metrics.reading(
        "podwire_table_rows",
        "gauge",
        "Rows of an internal table",
        lambda: [({"table": table.name}, float(len(table))) for table in tables],
    )
    metrics.reading(
        "podwire_policy_objects",
        "gauge",
        "Policy objects, by whether they are in force",
        lambda: policies(tables),
    )
    metrics.reading(
        "podwire_flow_events_total",
        "counter",
        "Events of the datapath: emitted = received + lost + waiting",
        lambda: [({"outcome": name}, value) for name, value in flows().items()],
    )
    metrics.reading(
        "podwire_flow_events_lost_total",
        "counter",
        "Events of the datapath that are not stored, by reason: ring-full, withheld (beyond the endpoint's"
        " share), unreadable",
        lambda: [({"reason": reason}, value) for reason, value in lost().items()],
    )
    metrics.reading(
        "podwire_hubble_connections_refused_total",
        "counter",
        "TCP connections to Hubble beyond the share of their address, or all",
        lambda: [({}, float(refused()))],
    )
    metrics.reading(
        "podwire_flow_events_withheld_total",
        "counter",
        "Of those lost, beyond the share of an endpoint: of what it sends, or of what comes to it from afar",
        lambda: withheld(tables, maps),
    )
    metrics.reading(
        "podwire_conntrack_share_used",
        "gauge",
        "Connections on the account of an endpoint: that it opened, or that came to it from afar",
        lambda: connections(tables, maps),
    )
    metrics.reading(
        "podwire_conntrack_overflow_entries",
        "gauge",
        "Connections beyond a share or the table, of which the oldest go; since the last sweep",
        lambda: [({}, float(Conntrack.of(maps).in_use(enums.CtShare.OVERFLOW)))],
    )


def declare_lag(metrics: Metrics, lag: Lag) -> None:
    """How late the agent's event loop is; asked for on that loop."""
    metrics.reading(
        "podwire_event_loop_lag_seconds",
        "gauge",
        "Longest that the agent's event loop kept a timer waiting, of the last minute or two",
        lambda: [({}, lag.longest(asyncio.get_running_loop().time()))],
    )
    metrics.reading(
        "podwire_event_loop_late_total",
        "counter",
        "Times that the agent's event loop kept a timer waiting for more than 0.1 s",
        lambda: [({}, float(lag.late))],
    )


def outcomes(maps: Maps, *, dropped: bool, size: bool) -> Samples:
    """Packets or bytes by reason and direction, over all CPUs."""
    totals: Counter[tuple[int, int]] = Counter()
    for key, values in maps["podwire_metrics"].items_per_cpu():
        if bool(key.reason) == dropped:
            totals[key.reason, key.direction] += sum(
                value.bytes if size else value.packets for value in values
            )
    for (reason, direction), total in sorted(totals.items()):
        if not total:  # the map is an array: most of its places are no outcome
            continue
        labels = {"direction": enums.Direction(direction).name}
        if dropped:
            labels["reason"] = _reason(reason)
        yield labels, float(total)


def _reason(number: int) -> str:
    return DROP_TEXT[DropReason(number)] if number in DROP_TEXT else str(number)


def usage(used: Usage, value: Callable[[int, int], float]) -> Samples:
    for name, (entries, capacity) in used().items():
        yield {"map": name}, value(entries, capacity)


def states(tables: ReadTables) -> Samples:
    counted = Counter(row.state for row in tables.endpoints)
    return [({"state": state}, float(count)) for state, count in sorted(counted.items())]


def restricted(tables: ReadTables) -> Samples:
    counted = Counter(unknown for row in tables.endpoint_failures for unknown in row.unknown)
    return [({"unknown": unknown}, float(count)) for unknown, count in sorted(counted.items())]


def withheld(tables: ReadTables, maps: Maps) -> Samples:
    counts = maps["podwire_event_shares"]
    for share, labels in _shares(tables):
        found = counts.get(share)
        if found is not None and found.withheld:
            yield labels, float(found.withheld)


def connections(tables: ReadTables, maps: Maps) -> Samples:
    counts = Conntrack.of(maps)
    for share, labels in _shares(tables):
        used = counts.in_use(share)
        if used:
            yield labels, float(used)


def _shares(tables: ReadTables) -> Iterator[tuple[int, dict[str, str]]]:
    """Both shares of every endpoint, see `enums.CtShare`, with their labels."""
    for row in tables.endpoints:
        for side, direction in SIDES.items():
            yield row.id * 2 + side, {"namespace": row.namespace, "pod": row.pod, "direction": direction}


def policies(tables: ReadTables) -> Samples:
    counted = Counter("refused" if row.error else "in-force" for row in tables.policies)
    return [({"state": state}, float(count)) for state, count in sorted(counted.items())]
