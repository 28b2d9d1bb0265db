"""Object files as libbpf sees them: opened, configured, loaded. The other half of `library`.

Handles are libbpf's pointers; they live from `open_file` to `close`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from podwire.base.errors import KernelError
from podwire.bpf.library import MapInfo, captured_log, check, ffi, lib


def open_file(path: str) -> Any:
    with captured_log() as lines:
        handle = lib.bpf_object__open(os.fsencode(path))
    if handle == ffi.NULL:
        raise KernelError(f"open {path}", ffi.errno, hint=lines[-1] if lines else None)
    return handle


def close(handle: Any) -> None:
    lib.bpf_object__close(handle)


def load(handle: Any) -> tuple[int, list[str]]:
    """(errno, what libbpf and the verifier said)."""
    with captured_log() as lines:
        result = lib.bpf_object__load(handle)
    return -result, lines


def programs(handle: Any) -> Iterator[tuple[str, Any]]:
    program = lib.bpf_object__next_program(handle, ffi.NULL)
    while program != ffi.NULL:
        yield ffi.string(lib.bpf_program__name(program)).decode(), program
        program = lib.bpf_object__next_program(handle, program)


def program_skip(program: Any) -> None:
    """Leave `program` out when its object is loaded."""
    check(lib.bpf_program__set_autoload(program, False), "leave out a program")


def program_set_log_level(program: Any, level: int) -> None:
    """How much the verifier says of a program it takes, at debug level of libbpf's log."""
    check(lib.bpf_program__set_log_level(program, level), "set the verifier's log level")


def program_fd(program: Any) -> int:
    """Descriptor that lives as long as the object, or negative if it was left out."""
    return int(lib.bpf_program__fd(program))


def program_section(program: Any) -> str:
    return str(ffi.string(lib.bpf_program__section_name(program)).decode())


def maps(handle: Any) -> Iterator[tuple[str, Any]]:
    """Maps of the file by name; data sections are named ".rodata", ".data", ".bss"."""
    entry = lib.bpf_object__next_map(handle, ffi.NULL)
    while entry != ffi.NULL:
        yield ffi.string(lib.bpf_map__name(entry)).decode(), entry
        entry = lib.bpf_object__next_map(handle, entry)


def map_is_data(entry: Any) -> bool:
    return bool(lib.bpf_map__is_internal(entry))


def map_declared(name: str, entry: Any) -> MapInfo:
    """What the file asks for (id 0)."""
    return MapInfo(
        id=0,
        type=lib.bpf_map__type(entry),
        key_size=lib.bpf_map__key_size(entry),
        value_size=lib.bpf_map__value_size(entry),
        max_entries=lib.bpf_map__max_entries(entry),
        flags=lib.bpf_map__map_flags(entry),
        name=name,
    )


def map_set_max_entries(entry: Any, entries: int) -> None:
    check(lib.bpf_map__set_max_entries(entry, entries), "size a map")


def map_reuse(entry: Any, fd: int) -> None:
    check(lib.bpf_map__reuse_fd(entry, fd), "take an existing map")


def map_fd(entry: Any) -> int:
    """Descriptor that lives as long as the object."""
    return int(lib.bpf_map__fd(entry))


def map_own_pinning_off(entry: Any) -> None:
    """Ignore what the file says about pinning: the caller gives the paths."""
    check(lib.bpf_map__set_pin_path(entry, ffi.NULL), "clear a pin path")


def find_variable(handle: Any, section: str, name: str) -> tuple[int, int] | None:
    """(offset, size) of a variable in a data section, by BTF; None if it has none."""
    offset, size = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    if lib.pw_find_variable(handle, section.encode(), name.encode(), offset, size):
        return None
    return offset[0], size[0]


def initial_value(entry: Any) -> Any:
    """A writable view of a data section before it is loaded."""
    size = ffi.new("size_t *")
    start = lib.bpf_map__initial_value(entry, size)
    return ffi.buffer(start, size[0]) if start != ffi.NULL else None
