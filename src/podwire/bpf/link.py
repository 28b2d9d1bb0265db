"""Programs on hooks, as links: attach, pin, replace in one step, detach.

A link keeps its program attached as long as a descriptor or a pin is left, so a pinned link
filters while no agent runs, and `replace` switches programs without a moment between. A device is
meant in the network namespace of the calling thread. Kernels before 6.6 have no tcx; there
`attach_tc` makes a `Filter` on the device's clsact qdisc, which does the same in its own way.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from errno import ENODEV, ENOENT, ENOLINK

from podwire.base.errors import KernelError, NotFound
from podwire.bpf import library, probe
from podwire.bpf.descriptor import Descriptor
from podwire.bpf.filter import Filter, no_device
from podwire.bpf.library import LinkInfo
from podwire.bpf.object import Program


class Hook(IntEnum):
    """The kernel's attach types in use here."""

    INET4_CONNECT = 10
    INET6_CONNECT = 11
    UDP4_SENDMSG = 14
    UDP6_SENDMSG = 15
    UDP4_RECVMSG = 19
    UDP6_RECVMSG = 20
    INET4_GETPEERNAME = 29
    INET6_GETPEERNAME = 30
    INET_SOCK_RELEASE = 34
    XDP = 37
    TC_INGRESS = 46
    TC_EGRESS = 47


# Section names of libbpf for programs on cgroups, which say where the program goes.
CGROUP_SECTIONS = {
    "cgroup/connect4": Hook.INET4_CONNECT,
    "cgroup/connect6": Hook.INET6_CONNECT,
    "cgroup/sendmsg4": Hook.UDP4_SENDMSG,
    "cgroup/sendmsg6": Hook.UDP6_SENDMSG,
    "cgroup/recvmsg4": Hook.UDP4_RECVMSG,
    "cgroup/recvmsg6": Hook.UDP6_RECVMSG,
    "cgroup/getpeername4": Hook.INET4_GETPEERNAME,
    "cgroup/getpeername6": Hook.INET6_GETPEERNAME,
    "cgroup/sock_release": Hook.INET_SOCK_RELEASE,
}
XDP_GENERIC, XDP_NATIVE = 1 << 1, 1 << 2


class Link(Descriptor):
    """A link. Closing it detaches the program unless the link is pinned."""

    path: str | None = None

    @classmethod
    def open(cls, path: str) -> Link:
        """The link pinned at `path`; NotFound if there is none."""
        link = cls(_open_pinned(path))
        link.path = path
        return link

    @property
    def info(self) -> LinkInfo:
        """Which program where, now; `ifindex` 0 = the device is gone."""
        return library.link_info(self.fileno())

    def pin(self, path: str) -> None:
        super().pin(path)
        self.path = path

    def unpin(self) -> None:
        """Remove the pin, if there is one; the program stays as long as this descriptor."""
        path, self.path = self.path, None
        if path is not None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def replace(self, program: Program) -> None:
        """Let `program` take the place of the one attached, between two packets."""
        library.link_update(self.fileno(), program.fileno())

    def detach(self) -> None:
        """Take the program off its hook and remove the pin. A device gone meanwhile is fine."""
        error = -library.link_detach(self.fileno())
        if error and error not in (ENODEV, ENOENT, ENOLINK):
            library.fail("detach a link", error)
        self.unpin()
        self.close()


def _open_pinned(path: str) -> int:
    try:
        return library.open_pinned(path)
    except KernelError as error:
        if error.errno == ENOENT:
            raise NotFound(f"no link is pinned at {path}") from error
        raise


def open_attached(path: str) -> Link | Filter:
    """The link pinned at `path`, or the filter recorded there; NotFound if there is none."""
    fd = _open_pinned(path)
    if not os.readlink(f"/proc/self/fd/{fd}").endswith("bpf-map"):
        link = Link(fd)
        link.path = path
        return link
    with Descriptor(fd):
        return Filter.recorded(fd, path)


def _create(program: Program, target: int, hook: Hook, flags: int, where: str) -> Link:
    fd = library.link_create(program.fileno(), target, hook, flags)
    if fd == -ENODEV:
        raise no_device(program, where)
    return Link(library.check(fd, f"attach {program.name} to {where}"))


Attach = Callable[[Program, int, Hook], "Link | Filter"]


def attach_tc(program: Program, ifindex: int, hook: Hook) -> Link | Filter:
    """`program` on device `ifindex`, Hook.TC_INGRESS or TC_EGRESS seen from the device."""
    if probe.supported("tcx"):
        return _create(program, ifindex, hook, 0, f"device {ifindex}")
    return attach_filter(program, ifindex, hook)


def attach_filter(program: Program, ifindex: int, hook: Hook) -> Filter:
    """The same as a filter of clsact on every kernel: nobody waits for it, `bind` makes it a link later."""
    placed = Filter(ifindex, hook)
    placed.replace(program)
    return placed


def attach_xdp(program: Program, ifindex: int, *, generic: bool = False) -> Link:
    """`program` before the device's own processing; `generic` = after it, on any device."""
    probe.require("xdp link")
    return _create(program, ifindex, Hook.XDP, XDP_GENERIC if generic else XDP_NATIVE, f"device {ifindex}")


def attach_device(program: Program, ifindex: int, hook: Hook) -> Link | Filter:
    """`program` on any of the hooks that devices have."""
    return attach_xdp(program, ifindex) if hook is Hook.XDP else attach_tc(program, ifindex, hook)


def attach_cgroup(program: Program, directory: str, hook: Hook | None = None) -> Link:
    """`program` for the sockets of cgroup `directory`; where is known from its section unless given."""
    probe.require("cgroup link")
    chosen = hook if hook is not None else CGROUP_SECTIONS[program.section]
    try:
        target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"there is no cgroup {directory}") from error
    try:
        return _create(program, target, chosen, 0, f"cgroup {directory}")
    finally:
        os.close(target)


def ensure_tc(
    program: Program, ifindex: int, hook: Hook, path: str, *, attach: Attach = attach_tc
) -> Link | Filter:
    """`program` on device `ifindex` by what is pinned at `path`: replaced if it is there, else `attach`ed.

    A pinned link whose device is gone (or another one by now) is removed first.
    """
    try:
        attached = open_attached(path)
    except NotFound:
        return _pinned(attach(program, ifindex, hook), path)
    info = attached.info
    if info.ifindex == ifindex and info.attach_type == hook:
        if info.program != program.id:
            attached.replace(program)
        return attached
    attached.detach()
    return _pinned(attach(program, ifindex, hook), path)


def bind(program: Program, path: str, beside: str) -> None:
    """A link of `program` in the place of the filter recorded at `path`, if there is one; it is pinned at
    `beside` first, on the same file system. NetworkError if the device is gone.

    The kernel asks links before filters: from when the link is made the filter is not asked any more, so
    each packet meets one of the two. Killed on the way, `bound` does the rest.
    """
    probe.require("tcx")
    if os.path.exists(beside):  # of a try that failed half-way
        bound(path, beside)
        return
    with open_attached(path) as placed:
        if not isinstance(placed, Filter):
            return
        where = f"device {placed.ifindex}"
        with _create(program, placed.ifindex, Hook(placed.hook), 0, where) as link:
            link.pin(beside)
    bound(path, beside)


def bound(path: str, beside: str) -> None:
    """The link at `beside` takes the place of what is recorded at `path`. In the device's namespace."""
    with Link.open(beside) as link:
        info = link.info
    if not info.ifindex:  # its device went meanwhile
        os.unlink(beside)
        return
    Filter(info.ifindex, info.attach_type).detach()
    os.rename(beside, path)


def all_bound(folder: str, beside: str) -> None:
    """What was left in directory `beside` by who was killed while it bound what is recorded in `folder`."""
    for name in os.listdir(beside):
        bound(os.path.join(folder, name), os.path.join(beside, name))


def ensure_cgroup(program: Program, directory: str, path: str) -> Link:
    """The same for a cgroup hook."""
    try:
        link = Link.open(path)
    except NotFound:
        made = _pinned(attach_cgroup(program, directory), path)
        assert isinstance(made, Link)
        return made
    info = link.info
    if info.cgroup != os.stat(directory).st_ino:
        link.detach()
        return ensure_cgroup(program, directory, path)
    if info.program != program.id:
        link.replace(program)
    return link


def _pinned(made: Link | Filter, path: str) -> Link | Filter:
    try:
        made.pin(path)
    except BaseException:
        # Closing is enough for a link, not for a filter.
        made.detach()
        raise
    return made
