"""A machine that cannot hold a sandbox: one sentence, what to do next, and nothing half made."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.faults.conftest import Done, new_name, podwire, refused

from podwire.testing import leaks

pytestmark = pytest.mark.cluster
RUN = Path("/run/podwire/sandboxes")

# Interpreter and packages may be where only root can read: everything is imported before.
AS_NOBODY = """
import importlib, os, sys
from podwire.cli import COMMANDS, main
for module, _, _ in COMMANDS.values():
    importlib.import_module(module)
for module in ("lab", "up", "view", "processes", "control", "demo", "connectivity", "reach"):
    importlib.import_module(f"podwire.sandbox.{module}")
for module in ("client.hubble", "hubble.rpc", "client.agent"):
    importlib.import_module(f"podwire.{module}")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def nothing_half_made(name: str) -> Iterator[None]:
    before = leaks.snapshot()
    yield
    left = leaks.difference(before, leaks.snapshot())
    assert not [one for one in left if re.search(rf"{name}(?!\d)", one)]
    assert not (RUN / name).exists()


@pytest.fixture
def name() -> str:
    return new_name()


def as_nobody(*arguments: str) -> Done:
    command = [sys.executable, "-c", AS_NOBODY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def in_mounts(change: str) -> tuple[str, ...]:
    """Words that run a command in a mount namespace of its own, after the shell command `change`."""
    return ("unshare", "--mount", "--propagation", "private", "sh", "-ec", f'{change}; exec "$@"', "sh")


@pytest.mark.parametrize(
    "command",
    ["sandbox up", "sandbox down", "sandbox list", "sandbox env", "sandbox exec p -- true",
     "sandbox node n1 -- true", "sandbox restart-agent n1", "demo"],
)  # fmt: skip
def test_without_root_a_sandbox_is_refused(command: str) -> None:
    refused(as_nobody(*command.split()), "a sandbox needs root", "with sudo")


@pytest.mark.parametrize("command", ["status", "endpoint list", "bpf policy list", "metrics list", "tables"])
def test_without_root_no_agent_answers(command: str) -> None:
    """Whether or not one runs; the directory of sandboxes is there."""
    RUN.mkdir(parents=True, exist_ok=True)
    done = as_nobody(*command.split())
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert any(text in done.stderr for text in ("only root may talk", "no agent runs here", "no nodes"))


def test_nothing_may_be_mounted(name: str) -> None:
    """As in a container without the capability."""
    without = ("setpriv", "--inh-caps", "-sys_admin", "--bounding-set", "-sys_admin")
    done = podwire("sandbox", "up", "--name", name, before=without)
    refused(done, "podwire needs CAP_SYS_ADMIN")
    assert "run as root" not in done.stderr, "it is root"


def test_the_disk_is_full_before_anything_is_made(name: str) -> None:
    small = in_mounts(f"mkdir -p {RUN}; mount -t tmpfs -o size=64k tmpfs {RUN}")
    done = podwire("sandbox", "up", "--name", name, before=small)
    refused(done, f"{RUN} has only 0 MiB left", "make room")


def test_the_place_of_sandboxes_is_read_only(name: str) -> None:
    done = podwire(
        "sandbox", "up", "--name", name, before=in_mounts(f"mkdir -p {RUN}; mount -t tmpfs -o ro tmpfs {RUN}")
    )
    refused(done, str(RUN), "Read-only file system")


def test_a_file_is_where_the_directory_should_be(name: str) -> None:
    place = RUN / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("somebody's")
    try:
        refused(podwire("sandbox", "up", "--name", name), str(place))
        assert place.read_text() == "somebody's"
    finally:
        place.unlink()


def test_a_namespace_has_the_name_already(name: str) -> None:
    """Somebody else's namespace is neither used nor removed."""
    taken = f"pw-{name}-n1"
    subprocess.run(["ip", "netns", "add", taken], check=True)
    try:
        refused(podwire("sandbox", "up", "--name", name, "--nodes", "1"), taken)
        assert (Path("/run/netns") / taken).exists()
    finally:
        subprocess.run(["ip", "netns", "delete", taken], check=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nodes: [n1, n1]", "nodes[1]: “n1” is taken already"),
        ("nodes: 17", "nodes: 17 nodes are not possible"),
        ("nodes: [net]", "nodes[0]: “net” is reserved"),
        ("nodes: 1\n  mtu: 5", "line 2"),
        ("nodes: 1\nnodez: 2", "nodez"),
        (
            "nodes: [{name: a, podCIDRs: [10.9.0.0/16]}, {name: b, podCIDRs: [10.9.1.0/24]}]",
            "nodes[1].podCIDRs: 10.9.1.0/24 overlaps 10.9.0.0/16",
        ),
        ("nodes: [{name: a, podCIDRs: [10.96.3.0/24]}]", "nodes[0].podCIDRs: 10.96.3.0/24 overlaps"),
        ("dns: {upstreams: [resolver]}", "dns.upstreams[0]: “resolver” is not an IP address"),
        ("mtu: 100", "mtu: 100 is not between 1280 and 65535"),
        ("routing: bridge", "routing"),
        ("worlds: [{name: w, addresses: ['fd00:10:0:1::7']}]", "worlds[0].addresses[0]"),
        ("- a list", "array"),
        ("nodes: " + "[" * 3000, "is nested too deeply"),
        ("nodes: [", "is not YAML"),
    ],
)  # fmt: skip
def test_a_wrong_lab_is_refused_with_the_path(name: str, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "lab.yaml").write_text(text)
    done = podwire("sandbox", "up", "--name", name, "-f", str(tmp_path))
    refused(done, told, str(tmp_path / "lab.yaml"), code=2)
