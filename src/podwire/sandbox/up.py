"""`up` and `down`: a sandbox is made in the order of its record, and removed by it.

`up` plans, records and makes directories, cgroups and the underlay, forks the keeper, and waits
until nodes (and the lab's pods) are ready. Whatever fails or interrupts it, what was made is
removed again: there is no half a sandbox. One that a crash left behind is found by its record; one of
which anything still runs is never removed by `up`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from podwire.base.errors import Conflict, NotFound, PodwireError, StorageError, Unreachable
from podwire.base.files import locked
from podwire.sandbox import checks, children, keeper, mounts, succession, underlay
from podwire.sandbox.lab import Lab
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import RUN, Places, check_name, names
from podwire.sandbox.plan import INDEX_MAX, Plan, plan
from podwire.sandbox.plans import load, save
from podwire.sandbox.record import Record, remove_all

Tell = Callable[[str], None]


def up(lab: Lab, name: str, work: keeper.Work, *, timeout: float = 60.0, tell: Tell = lambda _: None) -> Plan:
    """Make sandbox `name` of `lab`; returns when its nodes and the lab's pods are ready.

    Raises Conflict if it runs already, and whatever kept it from coming up, with nothing left.
    """
    checks.machine()
    checks.families(lab)
    checks.init_program()
    places = Places(check_name(name), cgroup2())
    with _locked(places):
        _clear_leftovers(places, tell)
        _make_directory(places)
        record = Record(places.record)
        record.will_make("directory", places.directory)
        try:
            with undisturbed():
                _take_mounts(places, record)
                made = _lay_out(lab, places, record)
                reader = _start(made, places, record, work)
            _await_ready(reader, timeout, tell)
            places.complete.touch()
        except BaseException as error:
            with undisturbed():
                remove_all(record)
            if isinstance(error, OSError):
                where = error.filename or places.directory
                raise StorageError(
                    f"cannot make sandbox “{name}”: {where}: {error.strerror or error}",
                    hint="nothing is left of it; is there room, and may root write there?",
                ) from error
            raise
    return made


def down(name: str) -> list[str]:
    """Remove sandbox `name`; returns what could not be removed. NotFound if there is none."""
    checks.root()
    places = Places(check_name(name), cgroup2())
    if not places.directory.is_dir():
        known = ", ".join(names()) or "none"
        raise NotFound(f"there is no sandbox “{name}”", hint=f"sandboxes here: {known}")
    with _locked(places), undisturbed():
        return _remove(places)


def _remove(places: Places) -> list[str]:
    failures = remove_all(Record(places.record))
    if not failures and places.directory.is_dir():
        places.directory.rmdir()  # made, but its first record was not written: it is empty
    return failures


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP wait until the block is done: what it makes or removes, it does whole.

    An exception in the middle of a fork or of work in another namespace would leave what no record
    tells apart from what was not made yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = [
        (number, signal.signal(number, lambda number, _: came.append(number)))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    for missed in came:
        signal.raise_signal(missed)


@contextmanager
def _locked(places: Places) -> Iterator[None]:
    """Nobody else brings this sandbox up or down meanwhile.

    The lock is on a file beside the sandboxes (one on the sandbox's directory would go with it), which
    is removed before it is given free: who has opened it meanwhile finds that it is not the one there.
    """
    RUN.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(places.lock, fd):
                break
        except BlockingIOError as error:
            os.close(fd)
            raise Conflict(
                f"another command is bringing sandbox “{places.name}” up or down",
                hint="wait for it, or choose another name with --name",
            ) from error
        os.close(fd)
    try:
        yield
    finally:
        places.lock.unlink(missing_ok=True)
        os.close(fd)


def _is(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _clear_leftovers(places: Places, tell: Tell) -> None:
    if not places.record.exists():
        return
    if children.lives(places):
        _refuse(places, tell)
    tell(f"removing what an earlier sandbox “{places.name}” left behind")
    if failures := remove_all(Record(places.record)):
        raise StorageError(f"what an earlier sandbox left cannot be removed: {failures[0]}")


def _refuse(places: Places, tell: Tell) -> NoReturn:
    """What runs is not ours to end, whether the `up` that made it came to its end or was killed."""
    if places.complete.exists():
        # Whoever of it is missing: it is kept again from now on.
        if children.claimed(places, children.KEEPER) is None:
            succession.revive(places)
            tell(f"sandbox “{places.name}” had lost its keeper, and has another one now")
        raise Conflict(
            f"sandbox “{places.name}” runs already",
            hint=f"podwire sandbox down --name {places.name}, or choose another name with --name",
        )
    raise Conflict(
        f"sandbox “{places.name}” did not come up whole, and some of it still runs",
        hint=f"podwire sandbox down --name {places.name} removes it, or choose another name with --name",
    )


def _make_directory(places: Places) -> None:
    try:
        places.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot make {places.directory}: {error.strerror}") from error


def _take_mounts(places: Places, record: Record) -> None:
    """The file systems below which the sandbox's pins and cgroups are."""
    with mounts.undivided():
        for place in (mounts.BPF, mounts.CGROUP):
            if place in (mounts.BPF, places.cgroup_root):
                mounts.make(record.will_make("mount", place))


def _check_free(made: Plan, places: Places) -> None:
    """What is there and in no record is somebody else's: it is neither used nor, later, removed."""
    wanted = [places.cgroup, places.bpf, *(places.netns(member) for member in underlay.members(made))]
    for path in wanted:
        if path.exists():
            raise Conflict(
                f"{path} is there already, and no sandbox's record names it",
                hint="remove it if nobody needs it, or choose another name with --name",
            )


def _lay_out(lab: Lab, places: Places, record: Record) -> Plan:
    """The plan and everything that holds still: directories, cgroups, the underlay."""
    with locked(RUN):  # one sandbox at a time takes an index
        made = plan(lab, places.name, _free_index(places.name))
        save(made, places.state)
    _check_free(made, places)
    record.will_make("cgroup", places.cgroup)
    record.will_make("pins", places.bpf)
    for directory in (places.logs, places.pods, places.bpf):
        directory.mkdir(parents=True)
    for cgroup in (places.system_cgroup, *(places.agent_cgroup(node.name) for node in made.nodes)):
        cgroup.mkdir(parents=True)
    for node in made.nodes:
        places.node(node.name).mkdir(parents=True)
        places.node_bpf(node.name).mkdir()
        config = keeper.agent_config(made, places, node.name)
        (places.node(node.name) / "agent.json").write_bytes(msgspec.json.encode(config))
    for outside in made.worlds:
        (places.cgroup / outside.world.name).mkdir()
    return made


def _free_index(name: str) -> int:
    taken = set()
    for other in names():
        if other == name:
            continue
        try:
            taken.add(load(RUN / other / "sandbox.json").index)
        except (OSError, msgspec.MsgspecError):
            continue
    for index in range(1, INDEX_MAX + 1):
        if index not in taken:
            return index
    raise Conflict(f"there are {INDEX_MAX} sandboxes already", hint="take one down: podwire sandbox list")


def _start(made: Plan, places: Places, record: Record, work: keeper.Work) -> int:
    """Fork the keeper, then build the underlay beside its imports; where its progress is read."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    built, told = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.close(told)
        _be_keeper(made, places, writer, built, work)
    os.close(writer)
    os.close(built)
    try:
        underlay.make(made, places, record)
        os.write(told, b"1")
    finally:
        os.close(told)
    os.waitpid(pid, 0)  # the first of two forks
    return reader


def _be_keeper(made: Plan, places: Places, progress: int, built: int, work: keeper.Work) -> None:
    """In the fork: away from the terminal, into the sandbox's cgroup, and never back."""
    code = 1
    try:
        keeper.join_cgroup(places.system_cgroup)
        os.setsid()
        if os.fork():
            os._exit(0)
        _close_others(progress, built)
        os.chdir("/")
        keeper.name_process("podwire-keeper")
        keeper.log_to(places.logs / "keeper.log")
        keeper.Keeper(made, places, lambda: _sockets(made, places, built), progress, work).run()
        code = 0
    except PodwireError as error:
        os.write(progress, json.dumps({"error": str(error), "hint": error.hint}).encode() + b"\n")
    finally:
        os._exit(code)


def _close_others(*kept: int) -> None:
    """The locks and pipes of the command that forked us are not ours to hold."""
    for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:
                continue


def _sockets(made: Plan, places: Places, built: int) -> list[socket.socket]:
    if not os.read(built, 1):
        raise NotFound("the underlay was not built")
    os.close(built)
    return underlay.listening(made, places, 0)


def _await_ready(reader: int, timeout: float, tell: Tell) -> None:
    """Read the processes' progress until they say "ready" or why they cannot be."""
    deadline = time.monotonic() + timeout
    buffer = b""
    last = "its processes have not said anything"
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([reader], [], [], left)[0]:
                raise Unreachable(
                    f"the sandbox was not ready within {timeout:g} s: {last}", hint="--timeout waits longer"
                )
            piece = os.read(reader, 65536)
            if not piece:
                raise Unreachable("the sandbox's processes ended before it was ready", hint=last)
            buffer += piece
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                try:
                    message: dict[str, Any] = json.loads(line)
                except ValueError:
                    continue  # the end of a process that was killed while it wrote
                if message.get("ready"):
                    return
                last = _heard(message, tell) or last
    finally:
        os.close(reader)


def _heard(message: dict[str, Any], tell: Tell) -> str:
    if "error" in message:
        raise PodwireError(message["error"], hint=message.get("hint"))
    if message.get("times", 0) >= 3:
        log = message.get("log", "")
        raise Unreachable(f"{message['died']} ends again and again {message['how']}", hint=log or None)
    if "waiting" in message:
        return str(message["waiting"])
    if "say" in message:
        tell(str(message["say"]))
    return ""
