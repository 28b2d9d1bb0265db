"""What a test may leave behind on the machine: taken before and after, and compared.

Network namespaces, links of the machine's own namespace, pins, cgroups, sandboxes, and the BPF
maps and programs whose names are podwire's. The kernel frees some of them a moment after their last
user is gone, so a difference is looked at again before it counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

Snapshot = frozenset[str]

PATIENCE = 3.0  # s that the kernel may take to free what nobody uses
OWN = "podwire"
_SANDBOXES = Path("/run/podwire/sandboxes")


def snapshot() -> Snapshot:
    """Everything of these kinds that there is now, each as ``kind name``."""
    return frozenset(_all())


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What is in `after` and not in `before`, and still there; sorted, ``kind name`` each."""
    deadline = time.monotonic() + PATIENCE
    left = after - before
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = left & snapshot()
    return sorted(left)


def _all() -> Iterator[str]:
    yield from (f"network namespace {name}" for name in _names("/run/netns"))
    yield from (f"link {name}" for name in _names("/sys/class/net"))
    yield from (f"sandbox {name}" for name in _names(_SANDBOXES))
    yield from (f"pin {path}" for path in _below(Path("/sys/fs/bpf") / OWN))
    for mount in _cgroup_mounts():
        yield from (f"cgroup {path}" for path in _below(mount / OWN, directories=True))
    for kind in ("map", "prog"):
        yield from _objects(kind)


def _names(directory: str | Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _below(root: Path, *, directories: bool = False) -> Iterator[str]:
    for directory, _, files in os.walk(root):
        if directories:
            yield directory
        else:
            yield from (os.path.join(directory, name) for name in files)


def _cgroup_mounts() -> Iterator[Path]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            yield Path(before.split()[4])


def _objects(kind: str) -> Iterator[str]:
    """BPF maps and programs by id, where bpftool is installed."""
    try:
        done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, check=False)
        listed = json.loads(done.stdout or b"[]")
    except (OSError, ValueError):
        return
    for one in listed if isinstance(listed, list) else []:
        if str(one.get("name", "")).startswith(OWN):
            yield f"BPF {kind} {one['id']} ({one['name']})"
