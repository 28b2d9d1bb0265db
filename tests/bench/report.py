"""How the figures are shown: tables on the terminal, JSON, and docs/reference/performance.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from measure import METRICS, Row
from namespaces import ROOT
from targets import Verdict

PAGE = ROOT / "docs" / "reference" / "performance.md"


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // (1 << 20)
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} × {model}, {memory} GiB, virtual machine",
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[2]:.1f}",
        "commit": commit or "unknown",
    }


def as_json(rows: Sequence[Row], verdicts: Sequence[Verdict], failures: Mapping[str, str]) -> str:
    document = {
        **machine(),
        "rows": [asdict(row) for row in rows],
        "targets": [
            {
                "what": verdict.target.what,
                "target": verdict.target.demand,
                "measured": verdict.measured,
                "verdict": verdict.verdict,
            }
            for verdict in verdicts
        ],
        "failures": dict(failures),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def path_table(rows: Sequence[Row]) -> list[list[str]]:
    """A line per peer, a column per metric: value (ratio to the peer in the last column)."""
    paths = [row for row in rows if row.section == "paths"]
    names = list(dict.fromkeys(row.name for row in paths))
    cells = {(row.name, row.metric): row for row in paths}
    units = {"µs": "p50 µs", "Gbit/s": "Gbit/s"}
    heads = [
        f"{metric.upper()} {'µs' if 'p99' in metric else units[unit]}"
        for metric, (_, _, unit, _) in METRICS.items()
    ]
    table = [["PEER", *heads, "RATIO TO"]]
    for name in names:
        found = [cells.get((name, metric)) for metric in METRICS]
        against = next((row.against for row in found if row is not None), "")
        table.append([name, *(_cell(row) for row in found), against or "-"])
    return table


def other_table(rows: Sequence[Row]) -> list[list[str]]:
    table = [["WHAT", "VALUE", "UNIT"]]
    table += [[row.key, _number(row.value), row.unit] for row in rows if row.section != "paths"]
    return table


def target_table(verdicts: Iterable[Verdict]) -> list[list[str]]:
    table = [["TARGET", "DEMAND", "MEASURED", "VERDICT"]]
    for verdict in verdicts:
        measured = "-" if verdict.measured is None else _number(verdict.measured)
        table.append([verdict.target.what, verdict.target.demand, measured, verdict.verdict])
    return table


def text(table: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def markdown(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(rows: Sequence[Row], verdicts: Sequence[Verdict], failures: Mapping[str, str]) -> str:
    """The whole of performance.md."""
    about = machine()
    parts = [
        "# Performance",
        "",
        "Written by `python tests/bench/run.py --write`; `make bench` prints the same anew.",
        f"Measured {about['date']} at commit {about['commit']}.",
        f"Machine: {about['machine']}, kernel {about['kernel']}; load of the last quarter of an hour: "
        f"{about['load']}.",
        "",
        "Client and server share one core, so that the path is measured and not how long a core takes to",
        "wake up. A figure is the median over rounds of the median of a burst; the ratio in parentheses is",
        "to the peer named in the last column, measured before and after in the same round. Compare ratios,",
        "not microseconds: a shared machine drifts by a third between runs. `iptables` and `nftables` are",
        "kube-proxy's rules for that many services, the measured one in the middle, made in the same run.",
        "",
        "## Paths",
        "",
        markdown(path_table(rows)),
        "",
        "RR: a byte there and back on an open connection. CONNECT: connect() alone. CRR: connect, request,",
        "close. UDP: a datagram there and back. STREAM: one connection, one direction.",
        "",
        "## Everything else",
        "",
        markdown(other_table(rows)),
        "",
        "## Targets",
        "",
        markdown(target_table(verdicts)),
        "",
    ]
    if failures:
        parts += ["## Not measured", "", *(f"- {name}: {why}" for name, why in failures.items()), ""]
    return "\n".join(parts)


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    ratio = "" if row.ratio is None else f" ({row.ratio:.2f})"
    return f"{row.value:.1f}{ratio}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" if value < 100 else f"{value:.0f}"
