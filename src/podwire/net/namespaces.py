"""Network namespaces: make and remove named ones, run a function or open a socket in one.

A namespace is per thread in the kernel, so work in another one happens in a thread that enters it
and ends; the caller's own never changes. Named ones are bind mounts under /run/netns, as
`ip netns` makes them. A namespace is told by name or by a path with a slash (/proc/<pid>/ns/net).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from podwire.base.errors import Conflict, NetworkError, NotFound, lacking

T = TypeVar("T")

DIRECTORY = "/run/netns"
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 4096, 16384, 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, action: str) -> None:
    if result:
        _fail(action, ctypes.get_errno())


def _fail(action: str, number: int) -> NoReturn:
    hint = lacking("CAP_SYS_ADMIN") if number == errno.EPERM else None
    raise NetworkError(f"{action}: {os.strerror(number)}", hint=hint)


def path_of(namespace: str) -> str:
    """Path of a namespace given by name or path."""
    return namespace if "/" in namespace else os.path.join(DIRECTORY, namespace)


def open_namespace(namespace: str) -> int:
    """A descriptor of it; NotFound if there is none."""
    path = path_of(namespace)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no network namespace {path}") from error
    except OSError as error:
        raise NetworkError(f"open network namespace {path}: {error.strerror}") from error


def identity(namespace: str | None = None) -> tuple[int, int]:
    """(device, inode): equal for two paths of one namespace. None = the calling thread's."""
    status = os.stat("/proc/thread-self/ns/net" if namespace is None else path_of(namespace))
    return status.st_dev, status.st_ino


def enter(namespace: str) -> None:
    """Move the calling thread, and the threads it starts later, into it."""
    fd = open_namespace(namespace)
    try:
        _check(_libc.setns(fd, CLONE_NEWNET), f"enter network namespace {namespace}")
    finally:
        os.close(fd)


def run(namespace: str, work: Callable[..., T], *arguments: Any) -> T:
    """`work(*arguments)` in a thread inside the namespace; its result or its error."""

    def inside() -> T:
        enter(namespace)
        return work(*arguments)

    return _in_thread(f"in network namespace {namespace}", inside)


def _in_thread(name: str, work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  handed to the caller, who waits
            errors.append(error)

    thread = threading.Thread(target=body, name=name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def open_socket(
    namespace: str | None, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0
) -> socket.socket:
    """A socket of the namespace (None = the caller's), to use from any thread."""
    if namespace is None:
        return socket.socket(family, kind, protocol)
    return run(namespace, socket.socket, family, kind, protocol)


def ifindex(device: str) -> int:
    """Of a device of the calling thread's namespace; NotFound if there is none. Asked by an ioctl, which
    unlike netlink does not wait for who changes devices meanwhile."""
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise NotFound(f"there is no device {device}") from error


def create(name: str) -> str:
    """A new, empty namespace called `name`; its path. Conflict if the name is taken."""
    _share_directory()
    path = path_of(name)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError as error:
        raise Conflict(f"a network namespace {name} exists already") from error

    def make() -> None:
        _check(_libc.unshare(CLONE_NEWNET), "make a network namespace")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        mounted = _libc.mount(source.encode(), path.encode(), b"none", MS_BIND, None)
        _check(mounted, f"mount network namespace {name}")

    try:
        _in_thread(f"make network namespace {name}", make)
    except BaseException:
        delete(name)  # an interrupted wait comes here with the mount made
        raise
    return path


def delete(name: str) -> None:
    """Remove the name; the namespace goes with its last user. Gone already is fine."""
    path = path_of(name)
    if _libc.umount2(path.encode(), MNT_DETACH) and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        _fail(f"unmount network namespace {name}", ctypes.get_errno())
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _share_directory() -> None:
    """/run/netns as a shared mount, so that other mount namespaces see names come and go."""
    os.makedirs(DIRECTORY, exist_ok=True)
    target = DIRECTORY.encode()
    if _libc.mount(b"", target, b"none", MS_SHARED | MS_REC, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        _fail(f"share {DIRECTORY}", ctypes.get_errno())
    _check(_libc.mount(target, target, b"none", MS_BIND | MS_REC, None), f"bind {DIRECTORY}")
    _check(_libc.mount(b"", target, b"none", MS_SHARED | MS_REC, None), f"share {DIRECTORY}")
