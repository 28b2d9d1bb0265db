"""What the tests' own check for leftovers finds, and what it leaves to others: one of each kind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from podwire.bpf import library, probe
from podwire.bpf.map import MapType
from podwire.net import namespaces
from podwire.sandbox.places import RUN
from podwire.testing import leaks, whose

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
OURS = f"leak{os.getpid()}"
# Free on this machine, and without a number that could be a run's.
SOMEBODY = "somebody-" + str(os.getpid()).translate(str.maketrans("0123456789", "abcdefghij"))

# Holds a map and a program of podwire's until its input ends.
HOLDER = """
import sys
from podwire.bpf import library, probe
held = library.map_create(1, "podwire_stranger", 4, 4, 1, 0), probe.load_trivial(3, 0)
print(*held, flush=True)
sys.stdin.read()
"""


@contextmanager
def directory(path: Path) -> Iterator[None]:
    path.mkdir(parents=True)
    try:
        yield
    finally:
        path.rmdir()


@contextmanager
def namespace(name: str) -> Iterator[None]:
    namespaces.create(name)
    try:
        yield
    finally:
        namespaces.delete(name)


@contextmanager
def device(name: str) -> Iterator[None]:
    subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name[:11]}peer"], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@contextmanager
def process() -> Iterator[None]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield
        child.kill()


@contextmanager
def orphan() -> Iterator[None]:
    """Its parent has ended."""
    made = subprocess.run(["sh", "-c", "sleep 1000 >&- & echo $!"], stdout=subprocess.PIPE, check=True)
    try:
        yield
    finally:
        os.kill(int(made.stdout), 9)


@contextmanager
def opened(make: Callable[[], int]) -> Iterator[int]:
    descriptor = make()
    assert descriptor >= 0
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def new_map() -> int:
    return library.map_create(MapType.HASH, "podwire_leak", 4, 4, 1, 0)


def new_program() -> int:
    return probe.load_trivial(probe.SCHED_CLS, 0)


@contextmanager
def pin(place: str) -> Iterator[None]:
    """A map that is pinned there, in a file system that is mounted for it, and held by no process."""
    with TemporaryDirectory(prefix="podwire") as root, mounted(root), pinned(Path(root, place)):
        yield


@contextmanager
def mounted(root: str) -> Iterator[None]:
    probe.bpffs(root)
    try:
        yield
    finally:
        subprocess.run(["umount", root], check=True)


@contextmanager
def pinned(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    try:
        with opened(new_map) as descriptor:
            library.pin(descriptor, str(folder / "map"))
        yield
    finally:
        (folder / "map").unlink()


@contextmanager
def cgroup(name: str) -> Iterator[None]:
    root = Path(probe.cgroup2(), "podwire")
    with directory(root / name):
        yield
    if not [one for one in root.iterdir() if one.is_dir()]:
        root.rmdir()


Make = Callable[[], AbstractContextManager[object]]
KINDS: dict[str, Make] = {
    "network namespace": lambda: namespace(f"pw-{OURS}-n1"),
    "link": lambda: device(f"pw{os.getpid()}"),
    "sandbox": lambda: directory(RUN / OURS),
    "pin": lambda: pin(f"podwire/{OURS}"),
    "cgroup": lambda: cgroup(OURS),
    "process": process,
    "process without its parent": orphan,
    "BPF map": lambda: opened(new_map),
    "BPF prog": lambda: opened(new_program),
}
OTHERS: dict[str, Make] = {
    "network namespace": lambda: namespace(f"pw-{SOMEBODY}-n1"),
    "network namespace of another program": lambda: namespace(SOMEBODY),
    "link": lambda: device(f"veth{SOMEBODY[9:]}"),
    "sandbox": lambda: directory(RUN / SOMEBODY),
    "pin": lambda: pin(f"podwire/{SOMEBODY}"),
    "cgroup": lambda: cgroup(SOMEBODY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_test_leaves_is_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 0.2)
    before = leaks.snapshot()
    with KINDS[kind]():
        left = leaks.difference(before, leaks.snapshot())
        assert any(one.startswith(kind.removesuffix(" without its parent")) for one in left), left
    monkeypatch.undo()
    assert not leaks.difference(before, leaks.snapshot())


@pytest.mark.parametrize("kind", OTHERS)
def test_what_others_make_is_left_to_them(kind: str) -> None:
    before = leaks.snapshot()
    with OTHERS[kind]():
        assert not leaks.difference(before, leaks.snapshot())


@contextmanager
def stranger(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that neither descends from this run nor carries its id."""
    environment = {key: value for key, value in os.environ.items() if key != whose.RUN_ID}
    with subprocess.Popen(
        ["setsid", "--fork", *words],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        yield child


def test_maps_and_programs_of_another_podwire_are_left_to_it() -> None:
    before = leaks.snapshot()
    with stranger(sys.executable, "-c", HOLDER) as child:
        assert child.stdout is not None
        assert all(int(descriptor) >= 0 for descriptor in child.stdout.readline().split())
        after = leaks.snapshot()
        assert any("podwire_strange" in one for one in after - before), "they are there to be seen"
        assert not leaks.difference(before, after)


def test_a_sandbox_of_another_checkout_comes_and_goes() -> None:
    command = [sys.executable, "-m", "podwire.cli", "sandbox"]
    before = leaks.snapshot()
    with stranger(*command, "up", "--name", SOMEBODY, "--nodes", "1") as child:
        assert child.stdout is not None
        assert "is up" in child.stdout.read()
    try:
        assert (RUN / SOMEBODY).exists()
        assert not leaks.difference(before, leaks.snapshot())
    finally:
        subprocess.run([*command, "down", "--name", SOMEBODY], check=True, capture_output=True)
    assert not leaks.difference(before, leaks.snapshot())


def test_a_sandbox_is_the_runs_whose_processes_are_in_it() -> None:
    """Whatever its name: the demo's and a document's hold no number of ours."""
    command = [sys.executable, "-m", "podwire.cli", "sandbox"]
    before = leaks.snapshot()
    subprocess.run(
        [*command, "up", "--name", SOMEBODY, "--nodes", "1"], check=True, stdout=subprocess.DEVNULL
    )
    try:
        left = leaks.difference(before, leaks.snapshot())
    finally:
        subprocess.run([*command, "down", "--name", SOMEBODY], check=True, capture_output=True)
    for kind in ("sandbox", "network namespace", "cgroup", "pin", "BPF map", "BPF prog"):
        assert any(one.startswith(kind) for one in left), (kind, left)
