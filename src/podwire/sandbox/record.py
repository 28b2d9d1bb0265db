"""The record of everything a sandbox makes, written before it is made; what `down` removes by.

An append-only file of JSON lines. A kill -9 at any moment leaves at most a record of something
that was not made yet, and removing what is not there is no error. Lines are appended with one
write(2), so several processes of the sandbox may write; a torn last line is ignored.

Processes need no line of their own: each is in one of the recorded cgroups, and the kernel ends
all members of a cgroup at once, also those started between reading a list and acting on it
(from Linux 5.14 on; before, one by one until none is left).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from podwire.base.errors import KernelError, NetworkError, StorageError
from podwire.net import namespaces
from podwire.sandbox import mounts

RECORD = "record"  # the file's name in the sandbox's directory
Kind = Literal["netns", "cgroup", "directory", "pins", "mount"]


class Entry(msgspec.Struct, frozen=True):
    """Something made: what it is, and the path that identifies it. `gone`: it was removed again."""

    kind: Kind
    path: str
    gone: bool = False


_decoder = msgspec.json.Decoder(Entry)


class Record:
    """The record at `path`; its directory exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def will_make(self, kind: Kind, path: Path) -> Path:
        """Note that `path` is about to be made; returns it."""
        self._append(Entry(kind, str(path)))
        return path

    def removed(self, kind: Kind, path: Path) -> None:
        self._append(Entry(kind, str(path), gone=True))

    def entries(self) -> list[Entry]:
        """What may exist, oldest first."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found: dict[tuple[str, str], Entry] = {}
        for line in lines:
            try:
                entry = _decoder.decode(line)
            except msgspec.MsgspecError:
                continue  # torn by a crash (nothing was made under such a line), or not written by us
            if entry.gone:
                found.pop((entry.kind, entry.path), None)
            else:
                found.setdefault((entry.kind, entry.path), entry)
        return list(found.values())

    def _append(self, entry: Entry) -> None:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, msgspec.json.encode(entry) + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            raise StorageError(
                f"cannot write the sandbox's record {self.path}: {error.strerror}",
                hint="make room on the disk (or see who owns the directory) and try again",
            ) from error


def remove_all(record: Record) -> list[str]:
    """Remove everything recorded, newest first, processes before all; returns what could not be.

    Order: the processes of all cgroups, then pins and namespaces, then cgroups (which are empty
    now), mounts that no other sandbox uses, then directories. Each step goes on where another failed.
    """
    entries = record.entries()
    failures: list[str] = []
    for entry in entries:
        if entry.kind == "cgroup":
            _attempt(failures, partial(kill_members, Path(entry.path)))
    order = ("pins", "netns", "cgroup", "mount", "directory")
    for entry in sorted(reversed(entries), key=lambda one: order.index(one.kind)):
        _attempt(failures, partial(_REMOVERS[entry.kind], record, Path(entry.path)))
    return failures


def kill_members(cgroup: Path) -> None:
    """SIGKILL every process in `cgroup` and below, and wait until they are gone."""
    if not cgroup.exists():
        return
    kill = cgroup / "cgroup.kill"
    deadline = time.monotonic() + 10
    while "populated 1" in (cgroup / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise StorageError(f"processes in {cgroup} do not end")
        if kill.exists():
            kill.write_text("1")
        else:
            kill_each(cgroup)  # cgroup.kill came with Linux 5.14
        time.sleep(0.005)


def kill_each(cgroup: Path) -> None:
    """SIGKILL those that are members now. A number may be another process's by the time it is used,
    so each is held first, and asked for its cgroup again."""
    for listed in [cgroup / "cgroup.procs", *cgroup.rglob("cgroup.procs")]:
        for number in listed.read_text().split():
            try:
                process = os.pidfd_open(int(number))
            except ProcessLookupError:
                continue
            try:
                if number in listed.read_text().split():
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(process)


def remove_cgroup(cgroup: Path) -> None:
    """Remove `cgroup` and all below; a member that is being reaped is waited for."""
    kill_members(cgroup)
    for directory, _, _ in os.walk(cgroup, topdown=False):
        deadline = time.monotonic() + 5
        while True:
            try:
                os.rmdir(directory)
                break
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
    try:
        cgroup.parent.rmdir()  # the directory all sandboxes share, if this was the last
    except OSError:
        return


def _remove_pins(_: Record, path: Path) -> None:
    # Pins of links and maps are files; unlinking one drops the kernel's last reference.
    if path.exists():
        shutil.rmtree(path)
    try:
        path.parent.rmdir()
    except OSError:
        return


def _leave_mount(record: Record, place: Path) -> None:
    """Take it away unless another sandbox's record says that it uses it; ours does not from now on."""
    own = record.path.parent
    entry = Entry("mount", str(place))
    with mounts.undivided():
        others = (Record(other / RECORD) for other in own.parent.iterdir() if other != own)
        if not any(entry in other.entries() for other in others):
            mounts.remove(place)
        record.removed("mount", place)


def _remove_netns(_: Record, path: Path) -> None:
    namespaces.delete(str(path))


def _remove_directory(_: Record, path: Path) -> None:
    """The record goes last: a removal that is killed is done again by what it says."""
    if not path.exists():
        return
    for entry in path.iterdir():
        if entry.name == RECORD:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (path / RECORD).unlink(missing_ok=True)
    path.rmdir()


_REMOVERS: dict[Kind, Callable[[Record, Path], None]] = {
    "mount": _leave_mount,
    "netns": _remove_netns,
    "cgroup": lambda _, path: remove_cgroup(path),
    "directory": _remove_directory,
    "pins": _remove_pins,
}


def _attempt(failures: list[str], step: Callable[[], None]) -> None:
    try:
        step()
    except (OSError, KernelError, StorageError, NetworkError) as error:
        failures.append(str(error))
