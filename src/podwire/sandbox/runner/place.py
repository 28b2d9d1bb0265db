"""The place a pod's containers run in: its directory, cgroup, namespaces, and podwire-init to use them.

On disk (`<sandbox>/pods/<uid>/`): ``pod.json`` says which processes the pod has, for `podwire sandbox
exec` and for a control process that is started anew; ``resolv.conf``, ``hosts`` and ``hostname``
are mounted over /etc's; ``<container>/<n>.log`` and ``<n>.exit`` are those of its n-th run.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from podwire.base.files import replace_whole
from podwire.net import namespaces
from podwire.sandbox import checks
from podwire.sandbox.places import Places
from podwire.sandbox.record import Record, kill_members, remove_cgroup
from podwire.sandbox.runner.process import Process, ask, process, reap
from podwire.sandbox.runner.volumes import FILES, Mounts


class Run(msgspec.Struct):
    """One run of a container: who keeps its log, its own process, and what it was started with."""

    number: int
    keeper: Process
    process: Process
    began: float
    environment: dict[str, str]
    directory: str


class Setup(msgspec.Struct, frozen=True):
    """How a run is set up: its mounts, its standard input, whether that is a terminal."""

    mounts: Mounts = Mounts()
    stdin: int = subprocess.DEVNULL
    tty: bool = False


class Saved(msgspec.Struct):
    """What ``pod.json`` holds."""

    namespace: str
    name: str
    uid: str
    node: str
    netns: str
    cgroup: str
    first: Process | None = None  # the pod's PID 1
    addresses: tuple[str, ...] = ()
    began: float = 0.0
    attached: bool = False
    runs: dict[str, Run] = {}
    restarts: dict[str, int] = {}


class Place:
    """The place of one pod."""

    def __init__(self, places: Places, record: Record, saved: Saved, *, host_network: bool) -> None:
        self.places, self.record, self.saved = places, record, saved
        self.host_network = host_network
        self.directory = places.pods / saved.uid
        self.cgroup = Path(saved.cgroup)
        self.netns = Path(saved.netns)
        self.init = str(checks.init_program())

    @property
    def alive(self) -> bool:
        return self.saved.first is not None and self.saved.first.alive

    async def make(self, hostname: str, dns: str) -> None:
        """Namespaces, cgroup and files, all new; what an earlier try left is removed first."""
        self.remove()
        self.record.will_make("cgroup", self.cgroup)
        self.cgroup.mkdir(parents=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, (dns, "", hostname + "\n"), strict=True):
            (self.directory / name).write_text(text)
        if not self.host_network:
            self.record.will_make("netns", self.netns)
        network = ["--netns" if self.host_network else "--pin", str(self.netns)]
        binds = [part for name in FILES for part in ("--bind", f"{self.directory / name}:/etc/{name}")]
        command = [self.init, "pod", *network, "--cgroup", str(self.cgroup), "--hostname", hostname, *binds]
        launcher, printed = await ask(command)
        reap(launcher)
        numbers = [line for line in printed.split() if line.isdigit()]
        if "ready" not in printed or not numbers:
            raise subprocess.SubprocessError(f"the pod's first process did not start: {printed.strip()}")
        self.saved.first = process(int(numbers[0]))
        self.save()

    def write_hosts(self, hostname: str, aliases: Sequence[tuple[str, Sequence[str]]]) -> None:
        """The mounted file is written in place: its inode is what the pod sees."""
        lines = ["# Written by podwire.", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
        lines += [f"{address}\t{hostname}" for address in self.saved.addresses]
        lines += [f"{address}\t{' '.join(names)}" for address, names in aliases]
        (self.directory / "hosts").write_text("\n".join(lines) + "\n")

    def save(self) -> None:
        content = msgspec.json.encode(self.saved)
        replace_whole(self.directory / "pod.json", content, mode=0o600, durable=False)

    # -- containers

    def log(self, container: str, number: int) -> Path:
        return self.directory / container / f"{number}.log"

    def exit_file(self, container: str, number: int) -> Path:
        return self.directory / container / f"{number}.exit"

    async def start(self, container: str, number: int, command: list[str], run: Run, setup: Setup) -> Run:
        """Start a container; `run` says with what. Its log and its end are written by podwire-init."""
        assert self.saved.first
        (self.directory / container).mkdir(exist_ok=True)
        for stale in (self.log(container, number - 2), self.exit_file(container, number - 2)):
            stale.unlink(missing_ok=True)
        words = [self.init, "run", "--pid", str(self.saved.first.pid), "--cgroup", str(self.cgroup)]
        words += ["--log", str(self.log(container, number)), "--exit", str(self.exit_file(container, number))]
        words += [part for layers in setup.mounts.overlays for part in ("--overlay", ":".join(layers))]
        words += [part for pair in setup.mounts.binds for part in ("--bind", ":".join(pair))]
        words += ["--tty"] if setup.tty else []
        words += ["--dir", run.directory, "--", *command]
        keeper, printed = await ask(words, run.environment, setup.stdin)
        run.keeper, run.process = process(keeper), process(int(printed))
        self.saved.runs[container] = run
        self.save()
        return run

    def outcome(self, container: str, number: int) -> tuple[int, int, float] | None:
        """(exit code, signal, when) of a run that ended; None where nobody could write it down."""
        try:
            code, signal, when = self.exit_file(container, number).read_text().split()
        except (OSError, ValueError):
            return None
        return int(code), int(signal), float(when)

    def exec_words(self, container: str, command: Sequence[str], *, tty: bool = False) -> list[str]:
        """The podwire-init command line that runs `command` inside a running container."""
        run = self.saved.runs[container]
        words = [self.init, "exec", "--pid", str(run.process.pid), "--cgroup", str(self.cgroup)]
        return [*words, *(["--tty"] if tty else []), "--dir", run.directory, "--", *command]

    # -- the end

    async def kill(self) -> None:
        """End every process of the pod, at once."""
        await asyncio.to_thread(kill_members, self.cgroup)

    def remove(self) -> None:
        """Namespaces and cgroup; logs stay until `forget`."""
        remove_cgroup(self.cgroup)
        self.record.removed("cgroup", self.cgroup)
        if not self.host_network:
            namespaces.delete(str(self.netns))
            self.record.removed("netns", self.netns)
        self.saved.first = None
        self.saved.attached = False
