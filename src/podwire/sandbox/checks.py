"""Before anything is made: is this machine able to hold a sandbox? Each answer is one sentence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from podwire.base.errors import NotFound, NotPermitted, NotSupported, StorageError
from podwire.sandbox.lab import Lab
from podwire.sandbox.places import RUN

ROOM = 16 << 20  # bytes below which nothing is begun


def root() -> None:
    """Namespaces, cgroups and BPF need root."""
    if os.geteuid() != 0:
        raise NotPermitted("a sandbox needs root", hint="run the same command with sudo")


def machine() -> None:
    """Everything `up` needs and does not make itself. The first thing that is missing is raised."""
    root()
    if not Path("/sys/kernel/btf/vmlinux").exists():
        raise NotSupported("BTF of the running kernel", hint="use a kernel built with CONFIG_DEBUG_INFO_BTF")
    if shutil.which("ip") is None:
        raise NotFound("there is no `ip` command", hint="apt-get install iproute2")
    try:
        RUN.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(RUN).free
    except OSError as error:
        raise StorageError(f"cannot use {RUN}: {error.strerror}") from error
    if free < ROOM:
        raise StorageError(
            f"{RUN} has only {free >> 20} MiB left", hint="make room on its disk and try again"
        )


def families(lab: Lab) -> None:
    """The kernel has the IP families of the lab."""
    if lab.ipv6 and not Path("/proc/sys/net/ipv6/conf").is_dir():
        raise NotSupported("IPv6", hint="use --ip-family ipv4, or a kernel that has it (see ipv6.disable)")


def init_program() -> Path:
    """The pod's init, built by `make build` or installed beside the package."""
    here = Path(__file__).resolve()
    for candidate in (here.with_name("podwire-init"), here.parents[3] / "build" / "podwire-init"):
        if os.access(candidate, os.X_OK):
            return candidate
    raise NotFound("the pods' init program is not built", hint="run: make build")
