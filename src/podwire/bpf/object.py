"""Programs: open an object file, configure it, load it, run it on test data.

An `ObjectSpec` is a plain value: which file, which constants, which sizes, where maps are
pinned. `load` makes it real: constants are set between open and load, pinned maps are taken
again if they fit what the file declares (else `IncompatibleMaps` lists each difference), new ones
are pinned after everything was loaded, so a program the verifier refuses leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from errno import ENOENT
from struct import Struct
from typing import Any

import msgspec

from podwire.base.errors import ConfigError, Conflict, KernelError, NotFound, NotPermitted, VerifierRejected
from podwire.bpf import elf, library
from podwire.bpf.descriptor import Descriptor
from podwire.bpf.map import Codec, Map, MapType, raw

DATA_SECTIONS = (".rodata", ".data", ".bss")


class ObjectSpec(msgspec.Struct, frozen=True):
    """What to load.

    `constants` are `const volatile` (or initialised) globals by name, ints in native byte order or
    bytes; `max_entries` sizes by map name; maps are pinned as `pins`/<map name> unless it is empty:
    those in `shared`, None all; `programs` loads only these, None all. `verifier_log` is how much the
    verifier says into the debug log (1 each instruction, 4 how many it looked at); 0 nothing, unless it
    refuses.
    """

    path: str
    constants: dict[str, int | bytes] = {}
    max_entries: dict[str, int] = {}
    pins: str = ""
    shared: frozenset[str] | None = None
    programs: tuple[str, ...] | None = None
    verifier_log: int = 0

    def pin_of(self, name: str) -> str:
        """Where map `name` is pinned; empty = nowhere."""
        if not self.pins or (self.shared is not None and name not in self.shared):
            return ""
        return os.path.join(self.pins, name)


class Difference(msgspec.Struct, frozen=True):
    """`field` of map `name` is `found` where `wanted` is declared."""

    name: str
    field: str
    wanted: int
    found: int

    def __str__(self) -> str:
        return f"{self.name}: {self.field} is {self.found}, not {self.wanted}"


class IncompatibleMaps(Conflict):
    """Pinned maps are not as declared; `differences` has each."""

    def __init__(self, differences: list[Difference]) -> None:
        super().__init__(
            f"pinned maps do not fit: {'; '.join(str(one) for one in differences)}",
            hint="they were made by another version; a new directory of maps takes their place",
        )
        self.differences = differences


def differences(declared: library.MapInfo, found: library.MapInfo) -> list[Difference]:
    """Every way in which `found` cannot serve as `declared`. A bigger map is no difference: maps grow."""
    result = []
    for field in ("type", "key_size", "value_size", "max_entries", "flags"):
        wanted, has = getattr(declared, field), getattr(found, field)
        if wanted != has and not (field == "max_entries" and has > wanted):
            result.append(Difference(declared.name, field, wanted, has))
    return result


class SkbContext(msgspec.Struct, frozen=True):
    """What of `struct __sk_buff` a test run may set and shows afterwards. `ifindex` 0 is loopback."""

    mark: int = 0
    priority: int = 0
    ingress_ifindex: int = 0
    ifindex: int = 0
    cb: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    wire_len: int = 0
    gso_segs: int = 0
    gso_size: int = 0

    def pack(self) -> bytes:
        return _SKB.pack(
            self.mark,
            self.priority,
            self.ingress_ifindex,
            self.ifindex,
            *self.cb,
            self.wire_len,
            self.gso_segs,
            self.gso_size,
        )

    @classmethod
    def unpack(cls, context: bytes) -> SkbContext:
        mark, priority, ingress, ifindex, *cb, wire_len, gso_segs, gso_size = _SKB.unpack(
            context[: _SKB.size]
        )
        a, b, c, d, e = cb
        return cls(mark, priority, ingress, ifindex, (a, b, c, d, e), wire_len, gso_segs, gso_size)


# struct __sk_buff: mark at 8, priority 32, ingress_ifindex, ifindex, cb at 48, wire_len 160, gso_segs,
# gso_size 176, 192 bytes in all.
_SKB = Struct("=8xI20xIII4x5I92xII8xI12x")


class TestRun(msgspec.Struct, frozen=True):
    """What a test run gave: the program's return value, the packet and the context after it, the mean ns."""

    retval: int
    data: bytes
    duration_ns: int
    context: SkbContext | None = None

    __test__ = False  # pytest: not a test class


class Program(Descriptor):
    """A loaded program."""

    def __init__(self, fd: int, name: str = "", section: str = "") -> None:
        super().__init__(fd)
        self.info = library.program_info(fd)
        self.name = name or self.info.name
        self.section = section
        self.id = self.info.id

    @classmethod
    def open(cls, path: str) -> Program:
        """The program pinned at `path`."""
        return cls(library.open_pinned(path))

    def test_run(
        self, data: bytes, context: SkbContext | bytes | None = None, repeat: int = 1, room: int = 512
    ) -> TestRun:
        """Run on `data` (a frame of at least 14 bytes) `repeat` times; the packet may grow by `room`.

        A loaded sched_cls or XDP program; others answer with KernelError (EOPNOTSUPP).
        """
        packed = context.pack() if isinstance(context, SkbContext) else context
        retval, after, context_after, duration = library.test_run(
            self.fileno(), data, packed, max(repeat, 1), room
        )
        shown = SkbContext.unpack(context_after) if isinstance(context, SkbContext) else None
        return TestRun(retval, after, duration, shown)


def test_run(
    program: Program, data: bytes, ctx: SkbContext | bytes | None = None, repeat: int = 1
) -> tuple[int, bytes, int]:
    """(return value, packet after, ns per run)."""
    result = program.test_run(data, ctx, repeat)
    return result.retval, result.data, result.duration_ns


test_run.__test__ = False  # type: ignore[attr-defined]


class Object:
    """What was loaded: `programs` and `maps` by name. Closing closes all of them; pins stay."""

    def __init__(self, programs: dict[str, Program], maps: dict[str, Map[bytes, bytes]]) -> None:
        self.programs = programs
        self.maps = maps

    def program(self, name: str) -> Program:
        try:
            return self.programs[name]
        except KeyError:
            raise NotFound(
                f"there is no program {name} in the object", hint=f"it has {', '.join(self.programs)}"
            ) from None

    def map(self, name: str, key: Codec[Any] | type[Any], value: Codec[Any] | type[Any]) -> Map[Any, Any]:
        """Map `name` with codecs, on a descriptor of its own."""
        try:
            return self.maps[name].typed(key, value)
        except KeyError:
            raise NotFound(
                f"there is no map {name} in the object", hint=f"it has {', '.join(self.maps)}"
            ) from None

    def close(self) -> None:
        for owned in (*self.programs.values(), *self.maps.values()):
            owned.close()

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(spec: ObjectSpec, maps: Mapping[str, Map[Any, Any]] = {}) -> Object:
    """Load `spec`; maps named in `maps` are used instead of new or pinned ones.

    Errors: KernelError if the file cannot be opened, ConfigError for a constant or map it does not
    have, IncompatibleMaps, VerifierRejected with the verifier's log.
    """
    handle = elf.open_file(spec.path)
    taken: list[int] = []
    try:
        _set_constants(handle, spec)
        entries = {name: entry for name, entry in elf.maps(handle) if not elf.map_is_data(entry)}
        _size(entries, spec)
        fresh = _take_maps(entries, spec, maps, taken)
        _choose_programs(handle, spec)
        for _, program in elf.programs(handle):
            elf.program_set_log_level(program, spec.verifier_log)
        _load(handle, spec)
        return _own(handle, entries, fresh, spec)
    finally:
        elf.close(handle)
        for fd in taken:
            os.close(fd)


def _set_constants(handle: Any, spec: ObjectSpec) -> None:
    sections = {
        section: entry
        for name, entry in elf.maps(handle)
        for section in DATA_SECTIONS
        if name.endswith(section)
    }
    for name, value in spec.constants.items():
        place = _find_constant(handle, sections, name)
        if place is None:
            raise ConfigError(f"{spec.path} has no constant {name}")
        section, offset, size = place
        try:
            packed = (
                value.to_bytes(size, sys.byteorder, signed=value < 0) if isinstance(value, int) else value
            )
        except OverflowError:
            raise ConfigError(f"{value!r} does not fit the {size} bytes of constant {name}") from None
        if len(packed) != size:
            raise ConfigError(f"constant {name} has {size} bytes, not {len(packed)}")
        elf.initial_value(section)[offset : offset + size] = packed


def _find_constant(handle: Any, sections: dict[str, Any], name: str) -> tuple[Any, int, int] | None:
    for section, entry in sections.items():
        found = elf.find_variable(handle, section, name)
        if found is not None:
            return entry, *found
    return None


def _size(entries: dict[str, Any], spec: ObjectSpec) -> None:
    for name, size in spec.max_entries.items():
        if name in entries:  # one table of sizes serves several objects, each with its own maps
            elf.map_set_max_entries(entries[name], size)


def _take_maps(
    entries: dict[str, Any], spec: ObjectSpec, given: Mapping[str, Map[Any, Any]], taken: list[int]
) -> list[str]:
    """Give existing maps to the object; the names of those it will make."""
    problems: list[Difference] = []
    fresh = []
    for name, entry in entries.items():
        elf.map_own_pinning_off(entry)
        if name in given:
            fd = os.dup(given[name].fileno())
        elif spec.pin_of(name):
            try:
                fd = library.open_pinned(spec.pin_of(name))
            except KernelError as error:
                if error.errno != ENOENT:
                    raise
                fresh.append(name)
                continue
        else:
            fresh.append(name)
            continue
        taken.append(fd)
        problems += differences(elf.map_declared(name, entry), library.map_info(fd))
        if not problems:
            elf.map_reuse(entry, fd)
    if problems:
        raise IncompatibleMaps(problems)
    return fresh


def _choose_programs(handle: Any, spec: ObjectSpec) -> None:
    if spec.programs is None:
        return
    found = dict(elf.programs(handle))
    missing = sorted(set(spec.programs) - set(found))
    if missing:
        raise NotFound(f"{spec.path} has no program {', '.join(missing)}")
    for name, program in found.items():
        if name not in spec.programs:
            elf.program_skip(program)


def _load(handle: Any, spec: ObjectSpec) -> None:
    error, lines = elf.load(handle)
    if not error:
        return
    text = "\n".join(lines)
    failed = re.search(r"prog '(\w+)': BPF program load failed", text)
    if failed and "BEGIN PROG LOAD LOG" in text:
        raise VerifierRejected(failed.group(1), error, text)
    try:
        library.fail(f"load {spec.path}", error)
    except NotPermitted as refused:
        raise NotPermitted(refused.message, hint=lines[-1] if lines else refused.hint) from None
    except KernelError as failure:
        raise KernelError(failure.action, error, hint=lines[-1] if lines else None) from None


def _own(handle: Any, entries: dict[str, Any], fresh: list[str], spec: ObjectSpec) -> Object:
    """Descriptors of our own for everything; libbpf's memory goes with its handle."""
    made = Object({}, {})
    pinned: list[str] = []
    try:
        for name, program in elf.programs(handle):
            if elf.program_fd(program) >= 0:
                fd = os.dup(elf.program_fd(program))
                made.programs[name] = Program(fd, name, elf.program_section(program))
        for name, entry in entries.items():
            fd = os.dup(elf.map_fd(entry))
            info = library.map_info(fd)
            made.maps[name] = Map(fd, raw(info.key_size), raw(info.value_size))
            made.maps[name].name = name
            path = spec.pin_of(name)
            if path and name in fresh:
                made.maps[name].pin(path)
                pinned.append(path)
    except BaseException:
        made.close()
        for path in pinned:
            os.unlink(path)
        raise
    return made


__all__ = ["Difference", "IncompatibleMaps", "MapType", "Object", "ObjectSpec", "Program", "load", "test_run"]
