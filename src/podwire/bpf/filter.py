"""Programs on devices without links (before Linux 6.6, and of a new pod): filters of the clsact qdisc.

The kernel replaces a filter between two packets, as it does a link's program; and a filter belongs
to its device, so it filters while no agent runs. What it has not is a descriptor to pin. In its
place a map of one entry is pinned, which says where the filter is: device, direction, network
namespace. Whether it is there, and with which program, is asked of the kernel each time.
"""

from __future__ import annotations

import os
import struct
from errno import EINVAL, ENODEV, ENOENT
from socket import if_indextoname

from podwire.base.errors import NetworkError
from podwire.bpf import library
from podwire.bpf.descriptor import Descriptor
from podwire.bpf.library import LinkInfo
from podwire.bpf.map import MapType
from podwire.bpf.object import Program

HANDLE, PRIORITY = 0x706F, 1
EGRESS = 47  # Hook.TC_EGRESS
PLACE = struct.Struct("=IIQ")  # ifindex, hook, inode of the network namespace
KEY = bytes(4)


class Filter:
    """A program in the clsact qdisc of a device, at a handle of podwire's own.

    Used in the network namespace it was made in; in another one it counts as gone. The qdisc stays
    when the filter goes: it may hold others' filters, and passes every packet without any.
    """

    def __init__(self, ifindex: int, hook: int, namespace: int = 0, path: str | None = None) -> None:
        self.ifindex = ifindex
        self.hook = hook
        self.namespace = namespace or _namespace()
        self.path = path

    @classmethod
    def recorded(cls, fd: int, path: str) -> Filter:
        """From the map `fd` that is pinned at `path` in the filter's place."""
        place = library.map_lookup(fd, KEY, PLACE.size)
        assert place is not None  # an array's entry is always there
        ifindex, hook, namespace = PLACE.unpack(place)
        return cls(ifindex, hook, namespace, path)

    @property
    def info(self) -> LinkInfo:
        """As of a link: `ifindex` 0 = the device is gone; program 0 = somebody removed the filter."""
        here = self._is_here()
        return LinkInfo(
            id=0,
            type=library.LINK_TYPE_FILTER,
            program=self._program() if here else 0,
            ifindex=self.ifindex if here else 0,
            attach_type=self.hook,
            cgroup=0,
        )

    def pin(self, path: str) -> None:
        """Record at `path` where the filter is."""
        fd = library.map_create(MapType.ARRAY, "podwire_filter", len(KEY), PLACE.size, 1, 0)
        with Descriptor(fd) as record:
            place = PLACE.pack(self.ifindex, self.hook, self.namespace)
            library.check(library.map_update(fd, KEY, place), "record a filter")
            record.pin(path)
        self.path = path

    def replace(self, program: Program) -> None:
        """Let `program` take the place of the one there, if there is one, between two packets."""
        result = library.clsact_attach(self.ifindex, self.hook == EGRESS, program.fileno(), HANDLE, PRIORITY)
        if result == -ENODEV:
            raise no_device(program, f"device {self.ifindex}")
        library.check(result, f"attach {program.name} to device {self.ifindex}")

    def detach(self) -> None:
        """Remove the filter and its record. A device gone meanwhile is fine."""
        if self._is_here() and self._program():
            result = library.clsact_detach(self.ifindex, self.hook == EGRESS, HANDLE, PRIORITY)
            if -result not in (0, ENODEV, ENOENT):
                library.fail(f"detach from device {self.ifindex}", -result)
        path, self.path = self.path, None
        if path is not None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def close(self) -> None:
        """Nothing to close: the filter belongs to the device."""

    def __enter__(self) -> Filter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _is_here(self) -> bool:
        if self.namespace != _namespace():
            return False
        try:
            if_indextoname(self.ifindex)
        except OSError:
            return False
        return True

    def _program(self) -> int:
        found = library.clsact_query(self.ifindex, self.hook == EGRESS, HANDLE, PRIORITY)
        if -found in (ENODEV, ENOENT, EINVAL):
            return 0
        return library.check(found, f"ask for the filter of device {self.ifindex}")


def no_device(program: Program, where: str) -> NetworkError:
    """The same words for links and filters."""
    return NetworkError(
        f"attach {program.name}: there is no {where} in this network namespace",
        hint="it may have been removed meanwhile",
    )


def _namespace() -> int:
    """Inode of the calling thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino
