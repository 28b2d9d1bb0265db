"""What this kernel can do, found by doing it once.

`require("tcx")` returns or raises `NotSupported("tcx", since="6.6")`; `features()` is the table that
`podwire status` shows. Answers are kept for the life of the process. Nothing that is in use is
touched: a link to a device that does not exist fails in one way where links exist and in another where
they do not.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from errno import EBADF, ENODEV
from functools import cache
from struct import Struct

import msgspec

from podwire.base.errors import KernelError, NotPermitted, NotSupported, lacking
from podwire.bpf import library
from podwire.bpf.map import MapType

SCHED_CLS, XDP, CGROUP_SOCK, CGROUP_SOCK_ADDR = 3, 6, 9, 18
TCX_INGRESS, XDP_ATTACH = 46, 37
XDP_GENERIC = 1 << 1
CLONE_NEWNET = 0x40000000
NO_DEVICE = 0x7FFFFFFF
HELPER_SK_ASSIGN, HELPER_REDIRECT_NEIGH, HELPER_REDIRECT_PEER, HELPER_SET_RETVAL = 124, 152, 155, 187
HELPER_XDP_LOAD_BYTES = 189
KERNEL_BTF = "/sys/kernel/btf/vmlinux"

BPFFS = "/sys/fs/bpf"


class Feature(msgspec.Struct, frozen=True):
    """One thing podwire uses, the first kernel that has it, and whether this one does."""

    name: str
    since: str
    what: str
    supported: bool


@dataclass(frozen=True, slots=True)
class _Probe:
    since: str
    what: str
    ask: Callable[[], bool]


# struct bpf_insn: code, registers (source << 4 | destination), offset, immediate.
INSTRUCTION = Struct("=BBhi")
EXIT = INSTRUCTION.pack(0x95, 0, 0, 0)
RETURN_1 = INSTRUCTION.pack(0xB7, 0, 0, 1) + EXIT
# *(u64 *)(r10 - 8) = 0; r0 = 1; r0 = fetch_add(r10 - 8, r0); return r0
FETCH_ADD = (
    INSTRUCTION.pack(0x7A, 10, -8, 0)
    + INSTRUCTION.pack(0xB7, 0, 0, 1)
    + INSTRUCTION.pack(0xDB, 0 << 4 | 10, -8, 1)
    + EXIT
)


def load_trivial(program_type: int, attach_type: int) -> int:
    """A descriptor of the shortest program of this type, or a negative errno."""
    return library.load_instructions(program_type, attach_type, RETURN_1)


def _link(program_type: int, attach_type: int) -> bool:
    fd = load_trivial(program_type, attach_type if program_type != SCHED_CLS else 0)
    if fd < 0:
        return False
    try:
        return library.link_create(fd, NO_DEVICE, attach_type) in (-ENODEV, -EBADF)
    finally:
        os.close(fd)


def _xdp_link() -> bool:
    """Made and dropped on the loopback device of a network namespace of its own.

    A device that does not exist would not tell: the answer is EINVAL with and without XDP links.
    """
    fd = load_trivial(XDP, XDP_ATTACH)
    if fd < 0:
        return False
    results: list[int] = []

    def attach() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0:
            results.append(library.link_create(fd, 1, XDP_ATTACH, XDP_GENERIC))

    thread = threading.Thread(target=attach, name="probe XDP links")
    thread.start()
    thread.join()
    for descriptor in (fd, *(result for result in results if result >= 0)):
        os.close(descriptor)
    return bool(results) and results[0] >= 0


def _loaded(fd: int) -> bool:
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _batches() -> bool:
    fd = library.map_create(MapType.HASH, "podwire_probe", 4, 4, 1, 0)
    try:
        error, _ = library.map_update_batch(fd, bytes(4), bytes(4), 1)
        return error == 0
    finally:
        os.close(fd)


def _cgroup(attach_type: int, kind: int = CGROUP_SOCK_ADDR) -> Callable[[], bool]:
    return lambda: _loaded(load_trivial(kind, attach_type))


_PROBES: dict[str, _Probe] = {
    "kernel BTF": _Probe(
        "5.2", "programs fitted to the kernel (CONFIG_DEBUG_INFO_BTF)", lambda: os.path.exists(KERNEL_BTF)
    ),
    "pointers to functions": _Probe(
        "5.13",
        "functions of a program verified one by one",
        lambda: _loaded(library.load_pointer_call(SCHED_CLS)),
    ),
    "fetch atomics": _Probe(
        "5.12",
        "events numbered without a gap",
        lambda: _loaded(library.load_instructions(SCHED_CLS, 0, FETCH_ADD)),
    ),
    "bpf_set_retval": _Probe(
        "6.1",
        "EHOSTUNREACH from connect() to a service without backends (EPERM without)",
        lambda: library.has_helper(CGROUP_SOCK_ADDR, HELPER_SET_RETVAL),
    ),
    "tcx": _Probe("6.6", "programs on devices as links, replaced in one step", lambda: _link(3, TCX_INGRESS)),
    "xdp link": _Probe("5.9", "XDP programs as links", _xdp_link),
    "cgroup link": _Probe("5.7", "socket programs as links", lambda: _link(CGROUP_SOCK_ADDR, 10)),
    "ring buffer": _Probe("5.8", "events to the agent", lambda: library.has_map_type(MapType.RINGBUF)),
    "LPM trie": _Probe("4.11", "prefixes in maps", lambda: library.has_map_type(MapType.LPM_TRIE)),
    "bloom filter": _Probe("5.16", "XDP prefilter", lambda: library.has_map_type(MapType.BLOOM_FILTER)),
    "map batches": _Probe("5.6", "many map entries in one call", _batches),
    "bpf_redirect_peer": _Probe(
        "5.10", "into a pod without its queue", lambda: library.has_helper(SCHED_CLS, HELPER_REDIRECT_PEER)
    ),
    "bpf_redirect_neigh": _Probe(
        "5.10", "to the next hop in one step", lambda: library.has_helper(SCHED_CLS, HELPER_REDIRECT_NEIGH)
    ),
    "bpf_sk_assign": _Probe(
        "5.7", "to the transparent proxy", lambda: library.has_helper(SCHED_CLS, HELPER_SK_ASSIGN)
    ),
    "bpf_xdp_load_bytes": _Probe(
        "5.18", "frames read in the driver", lambda: library.has_helper(XDP, HELPER_XDP_LOAD_BYTES)
    ),
    "cgroup connect4": _Probe("4.17", "services at connect()", _cgroup(10)),
    "cgroup connect6": _Probe("4.17", "services at connect(), IPv6", _cgroup(11)),
    "cgroup sendmsg4": _Probe("4.18", "services at sendmsg()", _cgroup(14)),
    "cgroup sendmsg6": _Probe("4.18", "services at sendmsg(), IPv6", _cgroup(15)),
    "cgroup recvmsg4": _Probe("5.2", "a service's address in answers", _cgroup(19)),
    "cgroup recvmsg6": _Probe("5.2", "a service's address in answers, IPv6", _cgroup(20)),
    "cgroup getpeername4": _Probe("5.8", "a service's address from getpeername()", _cgroup(29)),
    "cgroup getpeername6": _Probe("5.8", "a service's address from getpeername(), IPv6", _cgroup(30)),
    "cgroup sock_release": _Probe("5.9", "what a closed socket leaves goes", _cgroup(34, CGROUP_SOCK)),
}


@cache
def supported(feature: str) -> bool:
    """Whether this kernel has `feature` (a name of `features()`); NotPermitted without root."""
    if os.geteuid() != 0:
        raise NotPermitted("asking the kernel for its features needs root", hint="run as root")
    return _PROBES[feature].ask()


def require(feature: str) -> None:
    """NotSupported, with the first kernel that has it, unless `feature` is here."""
    if not supported(feature):
        raise NotSupported(feature, since=_PROBES[feature].since)


def features() -> list[Feature]:
    """Every feature and whether it is here."""
    return [Feature(name, one.since, one.what, supported(name)) for name, one in _PROBES.items()]


def declared() -> list[tuple[str, str, str]]:
    """Name, first kernel, what for: of every feature, without asking."""
    return [(name, one.since, one.what) for name, one in _PROBES.items()]


def missing(names: Iterable[str]) -> list[Feature]:
    """Those of `names` that are not here."""
    return [one for one in features() if one.name in names and not one.supported]


def mounts(kind: str) -> list[str]:
    """Where filesystems of type `kind` are mounted, in this mount namespace."""
    return [path for path, found in _mount_table() if found == kind]


def _mount_table() -> list[tuple[str, str]]:
    with open("/proc/self/mounts") as table:
        fields = [line.split() for line in table]
    return [(path.encode().decode("unicode_escape"), kind) for _, path, kind, *_ in fields]


def cgroup2() -> str:
    """Mount point of cgroup v2; NotSupported if there is none."""
    found = mounts("cgroup2")
    if not found:
        raise NotSupported(
            "cgroup v2", since="4.5", hint="mount it: mount -t cgroup2 none /sys/fs/cgroup/unified"
        )
    return found[0]


def bpffs(path: str = BPFFS) -> str:
    """`path` with a bpf filesystem on it, mounted now if it was not."""
    if path in mounts("bpf"):
        return path
    if path in (mounted for mounted, _ in _mount_table()):
        raise NotSupported(
            "pinning", hint=f"{path} holds another filesystem; unmount it or name another path"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise NotSupported("pinning", hint=f"cannot make {path}: {error.strerror}") from error
    if libc.mount(b"bpf", path.encode(), b"bpf", 0, b"mode=0700"):
        number = ctypes.get_errno()
        raise KernelError(f"mount a bpf filesystem at {path}", number, hint=lacking("CAP_SYS_ADMIN"))
    return path
