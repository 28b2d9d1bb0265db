"""Whose a thing on the machine is: this test run's, or somebody else's, who may come and go.

A run has an id, which every process that it starts inherits in its environment. From there on:

- A process is the run's if it carries the id, or descends from the run.
- A name is the run's if its first number is the run's pid (tests name what they make so), or if it
  is that of a sandbox which processes of the run are in, or which a test has claimed.
- A map or program is the run's if a process of the run holds it. Who holds it is in /proc, and
  what is pinned is held by its place. One that nobody holds to be seen (it hangs on a hook, or in
  another mount namespace's pins) does not tell whose it is: it is the run's if no other podwire is
  at work on the machine. The same goes for devices that podwire names by hashes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podwire.base.errors import PodwireError
from podwire.sandbox.mounts import mounted

RUN_ID = "PODWIRE_TEST_RUN"
_SANDBOXES = Path("/run/podwire/sandboxes")
_claimed: set[str] = set()
_inhabited: set[str] = set()


def begin() -> None:
    """This process is a test run from now on; what it starts is its own."""
    os.environ[RUN_ID] = f"{os.getpid()}-{os.urandom(4).hex()}"


@contextmanager
def claimed(sandboxes: set[str]) -> Iterator[None]:
    """Sandboxes of these names are this run's during the block, although their names do not say so."""
    _claimed.update(sandboxes)
    try:
        yield
    finally:
        _claimed.difference_update(sandboxes)


def name_is_ours(name: str) -> bool:
    """Whether a namespace, pin, cgroup, sandbox or device of this name is the run's."""
    number = re.search(r"\d+", name)
    if number is not None and int(number[0]) == os.getpid():
        return True
    known = _claimed | _inhabited
    return any(re.fullmatch(rf"{re.escape(one)}|pw-{re.escape(one)}[-.].*", name) for one in known)


def processes() -> Iterator[tuple[int, str]]:
    """Pid and name of each process of the run that is in no sandbox.

    Those of a sandbox come and go as long as it is there: it is what may be left behind, and known
    by them as the run's.
    """
    _inhabited.clear()
    for pid in _pids():
        if pid == os.getpid() or not process_is_ours(pid):
            continue
        if re.search(r"^State:\s*[ZX]", _read(pid, "status"), re.M):
            continue  # it has ended; that nobody asked how is no leak
        inside = re.search(r"/podwire/([^/\n]+)/", _read(pid, "cgroup"))
        if inside:
            _inhabited.add(inside[1])
            continue
        yield pid, _read(pid, "comm").strip()


def process_is_ours(pid: int) -> bool:
    """Whether it carries the run's id, or is the run or below it."""
    mark = os.environ.get(RUN_ID)
    if mark and f"{RUN_ID}={mark}" in _read(pid, "environ").split("\0"):
        return True
    return os.getpid() in _ancestors(pid)


def _ancestors(pid: int) -> Iterator[int]:
    """`pid`, its parent, and so on."""
    while pid:
        yield pid
        found = re.search(r"^PPid:\s*(\d+)", _read(pid, "status"), re.M)
        pid = int(found[1]) if found else 0


def alone() -> bool:
    """Whether no other podwire is at work: no process of it, no other run of tests, no sandbox."""
    if any(not name_is_ours(name) for name in _listed(_SANDBOXES)):
        return False
    above = set(_ancestors(os.getpid()))  # `nice python -m pytest` is no other run
    for pid in _pids():
        if pid in above:
            continue
        words = _read(pid, "cmdline").split("\0")[:4]
        known = _read(pid, "comm").startswith("podwire") or any(
            re.search(r"(^|/)(podwire|pytest|podwire\.[a-z.]+)$", word) for word in words
        )
        if (known or f"{RUN_ID}=" in _read(pid, "environ")) and not process_is_ours(pid):
            return False
    return True


class Holders:
    """Who holds which maps (``map 12``) and programs (``prog 7``), at this moment."""

    def __init__(self) -> None:
        self.ours: set[str] = set()
        self.others: set[str] = set()
        for pid in _pids():
            held = set(_held(pid))
            if held:
                (self.ours if process_is_ours(pid) else self.others).update(held)
        for path in _pins():
            place = self.ours if any(name_is_ours(part) for part in path.parts) else self.others
            place.update(_pinned(path))
        for program in objects("prog"):
            for place in (self.ours, self.others):
                if f"prog {program['id']}" in place:
                    place.update(f"map {number}" for number in program.get("map_ids", ()))
        self._alone = alone()

    def is_ours(self, thing: str) -> bool:
        return thing in self.ours or (thing not in self.others and self._alone)


def objects(kind: str) -> list[dict[str, Any]]:
    """All BPF maps (``map``) or programs (``prog``) of the machine, where bpftool is installed."""
    try:
        done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, check=False)
        listed = json.loads(done.stdout or b"[]")
    except (OSError, ValueError):
        return []
    return listed if isinstance(listed, list) else []


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, file: str) -> str:
    """Empty for a process that is gone, or that is not ours to read."""
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except OSError:
        return ""


def _held(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fdinfo"
    for descriptor in _listed(Path(folder)):
        yield from _named_in(_read(pid, f"fdinfo/{descriptor}"))


def _named_in(text: str) -> list[str]:
    """The map, or the program (also a link's), that a file of fdinfo is about."""
    return [f"{kind} {number}" for kind, number in re.findall(r"^(map|prog)_id:\s*(\d+)", text, re.M)]


def _pins() -> Iterator[Path]:
    for mount in mounted("bpf"):
        for folder, _, files in os.walk(mount):
            yield from (Path(folder, file) for file in files)


def _pinned(path: Path) -> list[str]:
    from podwire.bpf import library

    try:
        descriptor = library.open_pinned(str(path))
    except PodwireError:
        return []  # removed meanwhile, or nothing that can be opened (the kernel's own iterators)
    try:
        return _named_in(_read(os.getpid(), f"fdinfo/{descriptor}"))
    finally:
        os.close(descriptor)


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
