"""Network namespaces of the benchmark's own, which cannot outlive it.

A namespace is held by a process (`netbench hold`) that dies with the benchmark; with it go its
devices, rules and connections. Nothing gets a name in the file system, so there is nothing to
remove, also after kill -9.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("netbench.c")
ROOT = Path(__file__).parents[2]
NETBENCH = ROOT / "build" / "netbench"


class BenchError(Exception):
    """Something the benchmark needs did not work; the text says what."""


def build() -> Path:
    """Compile the client and server, if its source is newer than the program."""
    if not NETBENCH.exists() or NETBENCH.stat().st_mtime < SOURCE.stat().st_mtime:
        NETBENCH.parent.mkdir(exist_ok=True)
        run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(NETBENCH), str(SOURCE)])
    return NETBENCH


def run(command: Sequence[str], *, text: str = "", timeout: float = 120) -> str:
    """Its standard output; BenchError with its last words when it fails."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{_shown(command)} took more than {timeout:.0f} s") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BenchError(f"{_shown(command)}: {words[0]}")
    return done.stdout


def _shown(command: Sequence[str]) -> str:
    """Its beginning, without where the tree is."""
    return " ".join(command[:6]).replace(f"{ROOT}/", "")


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """A process that says `ready` when it is."""
    # A session of its own: Ctrl-C is answered by the benchmark, in its order.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        process.kill()
        process.wait()
        raise BenchError(f"{' '.join(command)} did not start")
    return process


@dataclass
class Namespace:
    """A network namespace and the processes in it."""

    holder: subprocess.Popen[str]
    processes: list[subprocess.Popen[str]]

    @classmethod
    def create(cls) -> Namespace:
        space = cls(start([str(NETBENCH), "hold"]), [])
        space.ip("link set lo up")
        return space

    @property
    def pid(self) -> int:
        return self.holder.pid

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` in here (nsenter execs: the process stays our child)."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]

    def ip(self, *commands: str) -> None:
        """Run `ip` commands in one go; the first that fails is an error."""
        run(self.inside("ip", "-batch", "-"), text="\n".join(commands) + "\n")

    def sysctl(self, **values: int) -> None:
        """Keys with `__` for `/`: `net__ipv4__ip_forward=1`."""
        for key, value in values.items():
            run(self.inside("sysctl", "-q", "-w", f"{key.replace('__', '.')}={value}"))

    def serve(self, address: str, port: int) -> None:
        self.processes.append(start(self.inside(str(NETBENCH), "serve", address, str(port))))

    def close(self) -> None:
        for process in [*self.processes, self.holder]:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
