"""A machine that has mounted nothing for us, and a shell that has set nothing: what is needed is made.

A mount namespace stands for such a machine: without a BPF file system and without cgroup2.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from podwire.sandbox import mounts
from podwire.testing import leaks, whose

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
TRIES = 4
LAB = Path(__file__).parents[3] / "labs" / "two-nodes"
CLI = (sys.executable, "-m", "podwire.cli")
_numbers = count(1)

Done = subprocess.CompletedProcess[str]
# `unshare` alone would leave shared mounts shared, and unmount the machine's as well. With a /run of its
# own, for sandboxes that somebody has beside us use the mounts that are to be taken away here.
BARE = (
    "umount -a -t bpf,cgroup2; mount -t tmpfs -o mode=755 run /run; "
    "mount --make-r{kind} /; echo made; exec sleep infinity"
)


class Machine:
    """A mount namespace; every command enters it anew, as from another shell."""

    def __init__(self, holder: int) -> None:
        self.holder = holder

    def words(self, *command: str) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", "--wd=.", *command]

    def run(self, *command: str) -> Done:
        return subprocess.run(self.words(*command), capture_output=True, text=True, timeout=120, check=False)

    def podwire(self, *arguments: str) -> Done:
        return self.run(*CLI, *arguments)

    def sandbox(self, *arguments: str) -> str:
        done = self.podwire("sandbox", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.words(*CLI, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def mounted(self) -> set[Path]:
        """Where it has a BPF file system or cgroup2."""
        table = Path(f"/proc/{self.holder}/mountinfo").read_text()
        return {Path(path) for path in re.findall(r"^(?:\S+ ){4}(\S+) .* - (?:bpf|cgroup2) ", table, re.M)}

    def left(self) -> list[str]:
        """Sandboxes and network namespaces that its /run still knows."""
        run = Path(f"/proc/{self.holder}/root/run")
        return [str(path) for place in ("podwire/sandboxes", "netns") for path in (run / place).glob("*")]


@pytest.fixture(params=["private", "shared"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """One without those mounts, whose other mounts are `private` or `shared` (as systemd makes them)."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", BARE.format(kind=request.param)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"made\n"
        made = Machine(holder.pid)
        assert made.mounted() == set()
        yield made
        left, known = made.mounted(), made.left()
        holder.kill()
    assert not left, "mounts of ours that are left"
    assert not known, "what is left in /run"


@pytest.fixture
def name() -> str:
    return f"bare{os.getpid()}-{next(_numbers)}"


def test_the_demo_runs_on_it(machine: Machine) -> None:
    child = subprocess.Popen(
        machine.words(*CLI, "demo"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with whose.claimed({f"demo-{child.pid}"}), leaks.nothing_left():
        told, _ = child.communicate()
    assert child.returncode == 0, told
    assert "NOT AS EXPECTED" not in told
    assert "Everything is removed." in told


def test_other_shells_find_what_is_mounted(machine: Machine, name: str) -> None:
    machine.sandbox("up", "--name", name, "-f", str(LAB))
    try:
        assert machine.mounted() == {mounts.BPF, mounts.CGROUP}
        assert "n1p1" in machine.sandbox("exec", "--name", name, "n1p1", "--", "hostname")
        assert machine.podwire("bpf", "policy", "list", "--sandbox", name).returncode == 0
        machine.sandbox("restart-agent", "--name", name, "n1")
        table = machine.sandbox("exec", "--name", name, "n1p1", "--", "cat", "/proc/self/mountinfo")
        assert " - bpf " not in table and " - cgroup2 " not in table, "no business of a pod"
    finally:
        machine.sandbox("down", "--name", name)


def test_the_last_of_several_sandboxes_takes_the_mounts_away(machine: Machine, name: str) -> None:
    names = [name, f"{name}b", f"{name}c"]
    for one in [machine.start("sandbox", "up", "--name", one, "--nodes", "1") for one in names]:
        assert one.wait() == 0
    machine.sandbox("down", "--name", names[0])
    assert machine.mounted() == {mounts.BPF, mounts.CGROUP}
    assert machine.podwire("status", "--sandbox", names[1]).returncode == 0
    for child in [machine.start("sandbox", "down", "--name", one) for one in names[1:]]:
        assert child.wait() == 0


def test_one_comes_up_while_another_goes_down(machine: Machine, name: str) -> None:
    """Whichever is first, the one that is up has its mounts."""
    names = [name, f"{name}b"]
    machine.sandbox("up", "--name", names[0], "--nodes", "1")
    for _ in range(TRIES // 2):
        down = machine.start("sandbox", "down", "--name", names[0])
        machine.sandbox("up", "--name", names[1], "--nodes", "1")
        assert down.wait() == 0
        assert machine.mounted() == {mounts.BPF, mounts.CGROUP}
        assert machine.podwire("status", "--sandbox", names[1]).returncode == 0
        names.reverse()
    machine.sandbox("down", "--name", names[0])


@pytest.mark.parametrize("what", ["up", "down"])
def test_a_killed_command_leaves_mounts_that_the_next_takes_away(
    machine: Machine, name: str, what: str
) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(TRIES):
        if what == "down":
            machine.sandbox("up", "--name", name, "--nodes", "1")
        child = machine.start("sandbox", what, "--name", name, *(["--nodes", "1"] if what == "up" else []))
        time.sleep(chance.uniform(0.05, 0.8))  # the moment is what is tested
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        down = machine.podwire("sandbox", "down", "--name", name)
        assert down.returncode == 0 or "there is no sandbox" in down.stderr, down.stderr
        assert machine.mounted() == set()


def test_cgroup2_that_cannot_be_written_is_mounted_again(name: str) -> None:
    change = "for one in $(findmnt -n -o TARGET -t cgroup2); do mount -o remount,bind,ro $one; done"
    script = f'{change}; "$@" up --name {name} --nodes 1; "$@" down --name {name}'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *CLI, "sandbox"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


NO_IPV6 = ("unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /proc/sys/net/ipv6; exec "$@"', "sh")


def test_a_kernel_without_ipv6_is_told_where_a_lab_wants_it(name: str) -> None:
    command = [*NO_IPV6, *CLI, "sandbox", "up", "--name", name, "--ip-family", "dual"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("Error: IPv6 is not supported here\n  use --ip-family ipv4"), done.stderr


# What a shell may lack: words in front of the command.
SHELLS = {
    "no variables": ("env", "-i"),
    "a path without sbin": ("env", "PATH=/usr/local/bin:/usr/bin:/bin"),
    "no home": ("env", "-u", "HOME"),
    "a locale without Unicode": ("env", "LC_ALL=C", "LANG=C"),
    "umask 077": ("sh", "-c", 'umask 077; exec "$@"', "sh"),
    "little locked memory": ("prlimit", "--memlock=65536:65536"),
    "no settings of IPv6": NO_IPV6,
    "a read-only /sys": ("unshare", "--mount", "sh", "-ec", 'mount -o remount,bind,ro /sys; exec "$@"', "sh"),
}  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_lacks_things_is_enough(shell: str, name: str) -> None:
    def sandbox(*arguments: str) -> Done:
        command = [*SHELLS[shell], *CLI, "sandbox", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    up = sandbox("up", "--name", name, "-f", str(LAB))
    try:
        assert up.returncode == 0, up.stderr
        assert "n1p1" in sandbox("exec", "--name", name, "n1p1", "--", "hostname").stdout
        reader = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", "/etc/resolv.conf")
        read = sandbox("exec", "--name", name, "n1p1", "--", *reader)
        assert "nameserver" in read.stdout, read.stderr
    finally:
        down = sandbox("down", "--name", name)
    assert up.returncode != 0 or down.returncode == 0, down.stderr
