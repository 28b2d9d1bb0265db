"""The processes of a sandbox as any keeper finds them: each claims its name while it lives.

A claim is a file that its process holds locked and that says who it is. So a keeper that is started
when another was killed finds what still runs and keeps that, and whatever happens at the same time,
there are never two of a name: the second ends before it has done anything. A lock ends with its
process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable

import msgspec

from podwire.base.errors import Conflict
from podwire.sandbox.places import Places
from podwire.sandbox.runner.process import Process, process

KEEPER, CONTROL, GUARD = "keeper", "control", "guard"


class Child(msgspec.Struct):
    """A process that is kept running."""

    name: str
    start: Callable[[], None]
    pid: int = 0
    pidfd: int = -1  # readable once it has ended, whoever started it
    starts: int = 0
    quick_deaths: int = 0
    since: float = 0.0
    due: float = 0.0  # when to start it again; 0 = it runs

    def open(self, pid: int) -> bool:
        """`pid` is this process; False if it has ended already."""
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self.pid = pid
        return True

    def ended(self) -> str:
        """Forget the process that ended; how it ended, as far as that is known."""
        pid, self.pid = self.pid, 0
        os.close(self.pidfd)
        self.pidfd = -1
        try:
            _, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return "(an earlier keeper had started it)"
        code = os.waitstatus_to_exitcode(status)
        return f"with signal {-code}" if code < 0 else f"with exit code {code}"

    def signal(self, number: int = signal.SIGTERM) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return  # it has ended and is about to be noticed


def claim(places: Places, name: str) -> int:
    """Be `name` from now on, until this process ends or closes the descriptor that is returned.

    Conflict if another process is.
    """
    path = places.claim(name)
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Conflict(f"{name} of sandbox “{places.name}” runs already") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, msgspec.json.encode(process(os.getpid())), 0)
    return fd


def claimed(places: Places, name: str) -> Process | None:
    """Who is `name` now; None where nobody is (or is about to say so)."""
    try:
        known = msgspec.json.decode(places.claim(name).read_bytes(), type=Process)
    except (OSError, msgspec.MsgspecError):
        return None
    # A guard that has become the keeper finds its own old claim.
    return known if known.alive and known.pid != os.getpid() else None


def lives(places: Places) -> bool:
    """Whether any process of the sandbox runs: one of its own, or one in a pod."""
    try:
        return "populated 1" in (places.cgroup / "cgroup.events").read_text()
    except OSError:
        return False
