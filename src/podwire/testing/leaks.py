"""What a test may leave behind on the machine: taken before and after, and compared.

Processes, network namespaces, devices of the machine's own namespace, sandboxes, pins, cgroups, and
the BPF maps and programs whose names are podwire's; of all of them only what this test run made (see
`whose`): other programs, and another checkout's tests, come and go as they like. The kernel frees
some of them a moment after their last user is gone, so a difference is looked at again before it counts.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podwire.sandbox.mounts import mounted
from podwire.testing import whose

Snapshot = frozenset[str]

PATIENCE = 20.0  # s that the kernel may take to free what nobody uses; a busy machine makes it wait
OWN = "podwire"
_SANDBOXES = Path("/run/podwire/sandboxes")
_HASHED = re.compile(r"lxc[0-9a-f]{12}|podwire_\w+")  # a pod's device, the tunnel's


def snapshot() -> Snapshot:
    """Everything of these kinds that there is now, each as ``kind name``."""
    return frozenset(_all())


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What is in `after` and not in `before`, and still there; sorted, ``kind name`` each."""
    deadline = time.monotonic() + PATIENCE
    left = _ours(after - before)
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = _ours(left & snapshot())
    return sorted(left)


@contextmanager
def nothing_left() -> Iterator[None]:
    """AssertionError that names what the block leaves behind; PODWIRE_LEAK_CHECK=off looks away."""
    if os.environ.get("PODWIRE_LEAK_CHECK") == "off":
        yield
        return
    before = snapshot()
    yield
    left = difference(before, snapshot())
    assert not left, "left behind: " + "; ".join(left)


def _ours(left: Snapshot) -> Snapshot:
    """Without the maps, programs and devices of others: who holds one is only asked where it matters."""
    objects = {one: one.removeprefix("BPF ").partition(" (")[0] for one in left if one.startswith("BPF ")}
    if objects:
        holders = whose.Holders()
        left -= {one for one, thing in objects.items() if not holders.is_ours(thing)}
    hashed = {one for one in left if one.startswith("link ") and not whose.name_is_ours(one)}
    return left if not hashed or whose.alone() else left - hashed


def _all() -> Iterator[str]:
    # First: it finds out which sandboxes are the run's.
    yield from (f"process {pid} ({name})" for pid, name in whose.processes())
    yield from (f"network namespace {name}" for name in _names("/run/netns") if whose.name_is_ours(name))
    for name in _names("/sys/class/net"):
        if whose.name_is_ours(name) or _HASHED.fullmatch(name):
            yield f"link {name}"
    yield from (f"sandbox {name}" for name in _names(_SANDBOXES) if whose.name_is_ours(name))
    for mount in mounted("bpf"):
        yield from (f"pin {path}" for path in _below(mount))
    for mount in mounted("cgroup2"):
        yield from (f"cgroup {path}" for path in _below(mount, directories=True))
    for kind in ("map", "prog"):
        for one in whose.objects(kind):
            if str(one.get("name", "")).startswith(OWN):
                yield f"BPF {kind} {one['id']} ({one['name']})"


def _names(directory: str | Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _below(mount: Path, *, directories: bool = False) -> Iterator[str]:
    """What is in directories of the run: those named after it, in `mount` itself or in podwire's there."""
    for place in (mount, mount / OWN):
        for name in _names(place):
            if not whose.name_is_ours(name):
                continue
            for directory, _, files in os.walk(place / name):
                if directories:
                    yield directory
                else:
                    yield from (os.path.join(directory, file) for file in files)
