"""What `podwire hubble status` and `list` print."""

from __future__ import annotations

import io
import json
from typing import Any

from podwire.base.errors import UsageError
from podwire.cli.hubble_text import as_json, escape, node_state, table


def status(answer: Any, form: str) -> str:
    """observer.ServerStatusResponse as text."""
    connected = str(answer.num_connected_nodes.value) if answer.HasField("num_connected_nodes") else "N/A"
    unavailable = (
        str(answer.num_unavailable_nodes.value) if answer.HasField("num_unavailable_nodes") else "N/A"
    )
    rate = f"{answer.flows_rate:.2f}" if answer.flows_rate > 0 else "N/A"
    values = [
        ("NUM FLOWS", f"{answer.num_flows:,}"),
        ("MAX FLOWS", f"{answer.max_flows:,}"),
        ("SEEN FLOWS", f"{answer.seen_flows:,}"),
        ("FLOWS PER SECOND", rate),
        ("UPTIME", duration(answer.uptime_ns)),
        ("NUM CONNECTED NODES", connected),
        ("NUM UNAVAILABLE NODES", unavailable),
        ("VERSION", escape(answer.version)),
    ]
    match form:
        case "compact":
            return _compact(answer, rate)
        case "dict":
            names = {"NUM UNAVAILABLE NODES": "NUM UNAVAIL. NODES"}
            return "".join(f"{names.get(name, name):>19}: {value}\n" for name, value in values)
        case "json" | "JSON" | "jsonpb":
            return as_json(answer) + "\n"
        case "tab" | "table":
            return _table([[name for name, _ in values], [value for _, value in values]])
        case _:
            raise UsageError(f"invalid output format: {form}")


def _compact(answer: Any, rate: str) -> str:
    ratio = f" ({100 * answer.num_flows / answer.max_flows:.2f}%)" if answer.max_flows else ""
    lines = [f"Current/Max Flows: {answer.num_flows:,}/{answer.max_flows:,}{ratio}"]
    if rate == "N/A" and answer.uptime_ns:
        rate = f"{answer.seen_flows / (answer.uptime_ns / 1e9):.2f}"
    lines.append(f"Flows/s: {rate}")
    unavailable = answer.num_unavailable_nodes.value
    if answer.HasField("num_connected_nodes"):
        connected = answer.num_connected_nodes.value
        total = f"/{connected + unavailable}" if answer.HasField("num_unavailable_nodes") else ""
        lines.append(f"Connected Nodes: {connected}{total}")
    if unavailable:
        lines.append(f"Unavailable Nodes: {unavailable}")
        names = sorted(answer.unavailable_nodes)
        if names and unavailable > len(names):
            names.append(f"and {unavailable - len(names)} more...")
        lines += [f"  - {escape(name)}" for name in names]
    return "\n".join(lines) + "\n"


def nodes(answer: Any, form: str) -> str:
    """observer.GetNodesResponse as text."""
    found = sorted(answer.nodes, key=lambda node: node.name)
    if form == "json":
        return _json_list(found)
    _check(form)
    rows = [["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"]]
    if form == "wide":
        rows[0] += ["VERSION", "ADDRESS", "TLS"]
    for node in found:
        seconds = round(node.uptime_ns / 1e9)
        rate = f"{node.seen_flows / seconds:.2f}" if seconds else "N/A"
        ratio = f"{100 * node.num_flows / node.max_flows:6.2f}" if node.max_flows else ""
        state = node_state(node.state).removeprefix("NODE_").removesuffix("_NODE_STATE").title()
        cells = [escape(node.name), state, duration(seconds * 10**9) if seconds else "N/A", rate]
        cells.append(f"{node.num_flows}/{node.max_flows} ({ratio}%)" if ratio else "N/A")
        if form == "wide":
            tls = ("Enabled" if node.tls.enabled else "Disabled") if node.HasField("tls") else "N/A"
            cells += [escape(node.version) or "N/A", escape(node.address), tls]
        rows.append(cells)
    return _table(rows)


def namespaces(answer: Any, form: str) -> str:
    """observer.GetNamespacesResponse as text."""
    if form == "json":
        return _json_list(answer.namespaces)
    _check(form)
    wide = form == "wide"
    rows = [["NAMESPACE", "CLUSTER"] if wide else ["NAMESPACE"]]
    for each in answer.namespaces:
        rows.append([escape(each.namespace), escape(each.cluster)] if wide else [escape(each.namespace)])
    return _table(rows)


def _check(form: str) -> None:
    if form not in ("table", "wide"):
        raise UsageError(f"unknown output format: {form}", hint="one of table, wide, json")


def _json_list(messages: Any) -> str:
    return json.dumps([json.loads(as_json(each)) for each in messages], indent=2, ensure_ascii=False) + "\n"


def _table(rows: list[list[str]]) -> str:
    out = io.StringIO()
    table(rows, out)
    return out.getvalue()


def duration(ns: int) -> str:
    """As Go writes durations: 1h2m3.5s, 1.5ms, 0s."""
    if ns == 0:
        return "0s"
    if ns < 10**9:
        for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if ns >= size:
                return f"{_decimal(ns, size)}{unit}"
    seconds, rest = divmod(ns, 10**9)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds * 10**9 + rest, 10**9)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    fraction = str(rest).rjust(len(str(size)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)
