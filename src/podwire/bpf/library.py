"""libbpf as it is, and nothing else of podwire knows it.

Raw calls with descriptors and bytes; every failure is a `KernelError` that says what was tried.
Each call releases the interpreter lock. What libbpf prints goes to this module's logger at debug
level, and to whoever asked for it with `captured_log` (the verifier's words come that way).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, ENOENT, EPERM
from functools import cache
from typing import Any, NoReturn

import msgspec

from podwire.base.errors import KernelError, NotPermitted

try:
    from podwire.bpf._libbpf import ffi as ffi
    from podwire.bpf._libbpf import lib as lib
except ImportError as missing:  # not built: say how, at the first import instead of deep in a call
    raise ImportError("podwire.bpf._libbpf is not built; run `make build`") from missing

log = logging.getLogger(__name__)
_thread = threading.local()


@ffi.def_extern(name="podwire_log")  # type: ignore[untyped-decorator, unused-ignore]
def _podwire_log(level: int, text: Any) -> None:
    line = ffi.string(text).decode(errors="replace").rstrip("\n")
    log.debug("%s", line)
    lines = getattr(_thread, "lines", None)
    if lines is not None and level < 2:  # warnings and notes; the rest is libbpf's own debugging
        lines.append(line)


lib.pw_capture_log()


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """What libbpf says in this thread while the block runs."""
    lines: list[str] = []
    before = getattr(_thread, "lines", None)
    _thread.lines = lines
    try:
        yield lines
    finally:
        _thread.lines = before


def fail(action: str, error: int) -> NoReturn:
    """Raise what `errno` `error` means for `action`."""
    if error == EPERM:
        raise NotPermitted(
            f"{action}: not permitted",
            hint="loading programs needs root (CAP_BPF and CAP_NET_ADMIN), and unlocked kernel features",
        )
    hint = "is the path on a bpf filesystem?" if error in (ENOENT, EACCES) and "pin" in action else None
    raise KernelError(action, error, hint=hint)


def check(result: int, action: str) -> int:
    """`result`, unless it is a negative errno."""
    if result < 0:
        fail(action, -result)
    return result


def version() -> str:
    return str(ffi.string(lib.libbpf_version_string()).decode())


@cache
def possible_cpus() -> int:
    """CPUs the kernel keeps per-CPU values for (not only those online)."""
    return check(lib.libbpf_num_possible_cpus(), "count CPUs")


# Pins and descriptors


def pin(fd: int, path: str) -> None:
    check(lib.bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def open_pinned(path: str) -> int:
    """A new descriptor of what is pinned at `path`."""
    return check(lib.bpf_obj_get(os.fsencode(path)), f"open pinned {path}")


# Maps


class MapInfo(msgspec.Struct, frozen=True):
    """A map as the kernel has it. `type` and `flags` are the kernel's numbers; sizes in bytes."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def map_info(fd: int) -> MapInfo:
    out = ffi.new("struct pw_map_info *")
    check(lib.pw_map_info(fd, out), "read map information")
    name = ffi.string(out.name).decode()
    return MapInfo(out.id, out.type, out.key_size, out.value_size, out.max_entries, out.flags, name)


def map_create(type: int, name: str, key_size: int, value_size: int, max_entries: int, flags: int) -> int:
    """A new map's descriptor. The kernel keeps 15 characters of the name."""
    fd = lib.pw_map_create(type, name[:15].encode(), key_size, value_size, max_entries, flags)
    return check(fd, f"create map {name}")


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> int:
    """0 or -errno; the caller knows which errors are expected."""
    return int(lib.bpf_map_update_elem(fd, key, value, flags))


def map_lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """`size` bytes of value, or None."""
    value = ffi.new("uint8_t[]", size)
    result = lib.bpf_map_lookup_elem(fd, key, value)
    if result == -ENOENT:
        return None
    check(result, "look up in a map")
    return bytes(ffi.buffer(value, size))


def map_delete(fd: int, key: bytes) -> bool:
    """Whether it was there."""
    result = lib.bpf_map_delete_elem(fd, key)
    if result == -ENOENT:
        return False
    check(result, "delete from a map")
    return True


def map_next_key(fd: int, key: bytes | None, size: int) -> bytes | None:
    following = ffi.new("uint8_t[]", size)
    result = lib.bpf_map_get_next_key(fd, ffi.NULL if key is None else key, following)
    if result == -ENOENT:
        return None
    check(result, "walk a map")
    return bytes(ffi.buffer(following, size))


def map_lookup_batch(
    fd: int, cursor: bytearray, first: bool, keys: bytearray, values: bytearray, room: int, *, delete: bool
) -> tuple[int, int]:
    """Fill `keys` and `values` with up to `room` entries behind `cursor`, which moves on.

    Returns (errno, entries): ENOENT = these were the last, ENOSPC = `room` is too small.
    """
    count = ffi.new("uint32_t *", room)
    position = ffi.from_buffer(cursor)
    start = ffi.NULL if first else position
    result = lib.pw_lookup_batch(
        fd, start, position, ffi.from_buffer(keys), ffi.from_buffer(values), count, delete
    )
    return -result, count[0]


def map_update_batch(fd: int, keys: bytes, values: bytes, entries: int) -> tuple[int, int]:
    """(errno, entries written)."""
    count = ffi.new("uint32_t *", entries)
    result = lib.pw_update_batch(fd, keys, values, count)
    return -result, count[0]


def map_delete_batch(fd: int, keys: bytes, entries: int) -> tuple[int, int]:
    """(errno, entries deleted)."""
    count = ffi.new("uint32_t *", entries)
    result = lib.pw_delete_batch(fd, keys, count)
    return -result, count[0]


# Programs


class ProgramInfo(msgspec.Struct, frozen=True):
    """A program as the kernel has it. Lengths in bytes, `load_time` in ns since boot."""

    id: int
    type: int
    name: str
    tag: str
    xlated_length: int
    jited_length: int
    verified_instructions: int
    load_time: int
    run_time_ns: int
    run_count: int


def program_info(fd: int) -> ProgramInfo:
    out = ffi.new("struct pw_prog_info *")
    check(lib.pw_prog_info(fd, out), "read program information")
    return ProgramInfo(
        id=out.id,
        type=out.type,
        name=ffi.string(out.name).decode(),
        tag=bytes(out.tag).hex(),
        xlated_length=out.xlated_length,
        jited_length=out.jited_length,
        verified_instructions=out.verified_instructions,
        load_time=out.load_time,
        run_time_ns=out.run_time_ns,
        run_count=out.run_count,
    )


def test_run(
    fd: int, data: bytes, context: bytes | None, repeat: int, room: int
) -> tuple[int, bytes, bytes, int]:
    """BPF_PROG_TEST_RUN: (return value, packet after, context after, ns per run)."""
    data_out = ffi.new("uint8_t[]", len(data) + room)
    context_out = ffi.new("uint8_t[]", len(context)) if context else ffi.NULL
    out = ffi.new("struct pw_test_run *")
    result = lib.pw_test_run(
        fd,
        data if data else ffi.NULL,
        len(data),
        data_out if data else ffi.NULL,
        len(data) + room if data else 0,
        context if context else ffi.NULL,
        context_out,
        len(context) if context else 0,
        repeat,
        out,
    )
    check(result, "run a program on test data")
    after = bytes(ffi.buffer(data_out, out.data_size_out)) if data else b""
    context_after = bytes(ffi.buffer(context_out, out.context_size_out)) if context else b""
    return out.retval, after, context_after, out.duration_ns


def load_instructions(type: int, attach_type: int, instructions: bytes) -> int:
    """Descriptor of a program of these instructions (8 bytes each), or -errno: how probes ask."""
    return int(lib.pw_load_probe(type, attach_type, instructions, len(instructions) // 8))


def load_pointer_call(type: int) -> int:
    """Descriptor of a program that gives a pointer to a global function, or -errno."""
    return int(lib.pw_load_pointer_call(type))


def has_helper(type: int, helper: int) -> bool:
    return bool(lib.libbpf_probe_bpf_helper(type, helper, ffi.NULL) == 1)


def has_map_type(type: int) -> bool:
    return bool(lib.libbpf_probe_bpf_map_type(type, ffi.NULL) == 1)


# Links

LINK_TYPE_FILTER = 0  # not the kernel's: a filter of clsact in the place of a link
LINK_TYPE_CGROUP, LINK_TYPE_XDP, LINK_TYPE_TCX = 3, 6, 11


class LinkInfo(msgspec.Struct, frozen=True):
    """A link: which program on what. `ifindex` is 0 when the device is gone."""

    id: int
    type: int
    program: int
    ifindex: int
    attach_type: int
    cgroup: int


def link_create(program_fd: int, target: int, attach_type: int, flags: int = 0) -> int:
    """Descriptor of the new link or -errno. `target` is an ifindex or a cgroup's descriptor."""
    return int(lib.pw_link_create(program_fd, target, attach_type, flags))


def link_update(fd: int, program_fd: int) -> None:
    check(lib.pw_link_update(fd, program_fd), "replace the program of a link")


def link_detach(fd: int) -> int:
    """0 or -errno."""
    return int(lib.bpf_link_detach(fd))


def link_info(fd: int) -> LinkInfo:
    out = ffi.new("struct pw_link_info *")
    check(lib.pw_link_info(fd, out), "read link information")
    return LinkInfo(out.id, out.type, out.program, out.ifindex, out.attach_type, out.cgroup)


def clsact_attach(ifindex: int, egress: bool, program_fd: int, handle: int, priority: int) -> int:
    """0 or -errno; an occupied handle is replaced."""
    return int(lib.pw_clsact(ifindex, egress, program_fd, handle, priority))


def clsact_detach(ifindex: int, egress: bool, handle: int, priority: int) -> int:
    return int(lib.pw_clsact(ifindex, egress, -1, handle, priority))


def clsact_query(ifindex: int, egress: bool, handle: int, priority: int) -> int:
    """Id of the program there, or -errno: ENOENT without the filter, EINVAL without a clsact qdisc."""
    return int(lib.pw_clsact_query(ifindex, egress, handle, priority))


# Ring buffer


class RingCounts(msgspec.Struct):
    """Records passed over: given up by the program, or of another size."""

    discarded: int = 0
    foreign: int = 0


def ring_read(
    consumer: Any, producer: Any, ring_size: int, page_size: int, out: Any, record_size: int, room: int
) -> tuple[int, RingCounts]:
    """Copy up to `room` records into the writable buffer `out`; (copied, passed over)."""
    counts = ffi.new("struct pw_ring_counts *")
    copied = lib.pw_ring_read(
        ffi.from_buffer(consumer),
        ffi.from_buffer(producer),
        ring_size,
        page_size,
        ffi.from_buffer(out),
        record_size,
        room,
        counts,
    )
    return copied, RingCounts(counts.discarded, counts.foreign)
