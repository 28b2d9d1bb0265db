"""Measurements that are scripts of their own, beside this file: packets, flows, services.

Each can be run alone (it prints a table); with `-o json` it prints one JSON array of
{"name": …, "metric": …, "value": …, "unit": …}, and with `--quick` it measures shorter. A row
becomes the figure `NAME: METRIC` that the targets refer to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from measure import Row
from namespaces import BenchError, run

SCRIPTS = ("packets", "flows", "services")


def rows(name: str, *, quick: bool) -> list[Row]:
    """The figures of one script; BenchError with its last words when it fails."""
    script = Path(__file__).with_name(f"{name}.py")
    if not script.exists():
        raise BenchError(f"there is no {script.name}")
    output = run([sys.executable, str(script), "-o", "json", *(["--quick"] if quick else [])], timeout=600)
    try:
        return [
            Row(name, one["name"], one["metric"], one["value"], one["unit"]) for one in json.loads(output)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{script.name} -o json printed something else: {error}") from error
