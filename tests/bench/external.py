"""Measurements that are scripts of their own, beside this file; each can be run alone.

They print lines of a name, a number and a unit (and whatever they like behind it); a line becomes
the figure `SECTION: NAME` that the targets refer to.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from measure import Row
from namespaces import BenchError, run

SCRIPTS = (
    *("packets", "asked", "sockets", "flows", "naming", "relay", "dumps", "services", "start", "plumbing"),
)
LINE = re.compile(
    r"^(?P<name>\S.*?)\s+(?P<value>-?\d[\d,.]*) (?P<unit>ns/flow|events/s|ns|µs|ms|s|MiB|KiB|×|%|/s)\b", re.M
)


def rows(name: str) -> list[Row]:
    """The figures of one script; BenchError with its last words when it fails."""
    script = Path(__file__).with_name(f"{name}.py")
    if not script.exists():
        raise BenchError(f"there is no {script.name}")
    found = parse(name, run([sys.executable, str(script)], timeout=600))
    if not found:
        raise BenchError(f"{script.name} printed no figure")
    return found


def parse(section: str, output: str) -> list[Row]:
    return [
        Row(section, section, line["name"], float(line["value"].replace(",", "")), line["unit"])
        for line in LINE.finditer(output)
    ]
