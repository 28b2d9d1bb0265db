"""File systems that sandboxes need and the machine may lack: mounted at podwire's own places, and taken away.

Pins are always on a bpffs of podwire's own, below its run directory: whether /sys/fs/bpf is mounted, and
what is in it, is the machine's affair. cgroup2 is one hierarchy wherever it is mounted, so it is mounted
only where nobody has, or where nobody may write.

All sandboxes share them. Each notes in its record that it uses a mount before it is made; the one that
notes last that it does not any more takes it away. Both happen under one lock, so a sandbox that comes
up and another that goes down meanwhile agree, and after a kill -9 at any moment the records still tell.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podwire.base.errors import KernelError, NotPermitted, NotSupported, lacking
from podwire.base.files import locked

OWN = Path("/run/podwire")
SYSTEM = Path("/sys/fs/cgroup")  # where the machine mounts cgroup2: there, or beside version 1 below it
BPF = OWN / "bpf"
CGROUP = OWN / "cgroup"
_TYPES = {BPF: ("bpf", "mode=0700"), CGROUP: ("cgroup2", None)}
_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def cgroup2() -> Path:
    """Where the machine has cgroup2 mounted and it can be written; podwire's own place if nowhere.

    Mounts elsewhere are somebody's, and may go while a sandbox still needs them.
    """
    found = (path for path in mounted("cgroup2") if path.is_relative_to(SYSTEM))
    return next((path for path in found if os.access(path, os.W_OK)), CGROUP)


def mounted(kind: str) -> list[Path]:
    """Where file systems of this type are mounted, oldest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith(f"{kind} "):
            found.append(Path(before.split()[4].encode().decode("unicode_escape")))
    return found


@contextmanager
def undivided() -> Iterator[None]:
    """Nobody else makes, takes into use or removes a mount of podwire's meanwhile."""
    OWN.mkdir(parents=True, exist_ok=True)
    with locked(OWN):
        yield


def make(place: Path) -> None:
    """Mount what belongs at `place` (BPF or CGROUP), if it is not there yet."""
    kind, options = _TYPES[place]
    if place in mounted(kind):
        return
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = options.encode() if options else None
    if _libc.mount(b"podwire", str(place).encode(), kind.encode(), _NOSUID_NODEV_NOEXEC, data) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.ENODEV:
        raise NotSupported(f"the {kind} file system", since="4.5", hint="use a kernel that is built with it")
    if number in (errno.EPERM, errno.EACCES):
        raise NotPermitted(
            f"{kind} cannot be mounted at {place}: {os.strerror(number)}",
            hint=lacking("CAP_SYS_ADMIN"),
        )
    raise KernelError(f"mount {kind} at {place}", number)


def remove(place: Path) -> None:
    """Unmount it; right also if it is not there.

    The empty directory stays: the kernel takes a mount point that is removed from all mount namespaces,
    and in another one sandboxes may run that our records do not know.
    """
    while place in mounted(_TYPES[place][0]):
        # Detached at once, also from under somebody who just looks at it; nothing is in it any more.
        if _libc.umount2(str(place).encode(), _MNT_DETACH):
            raise KernelError(f"unmount {place}", ctypes.get_errno())
