"""Kernel settings of the calling thread's network namespace, written only where they differ.

In another namespace: ``namespaces.run(path, sysctl.ensure, {...})``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from podwire.base.errors import NetworkError, NotPermitted, lacking

ROOT = Path("/proc/sys/net")


def read(name: str) -> str:
    """Value of ``ipv4/ip_forward``; slashes, because device names may have dots."""
    try:
        return (ROOT / name).read_text().strip()
    except OSError as error:
        raise NetworkError(f"read setting {name}: {error.strerror}") from error


def present(name: str) -> bool:
    """Whether there is such a setting: the device may be gone, the kernel without that part."""
    return (ROOT / name).exists()


def ensure(wanted: Mapping[str, str | int]) -> None:
    """Make each setting its value, in order."""
    for name, value in wanted.items():
        if read(name) == str(value):
            continue
        try:
            (ROOT / name).write_text(str(value))
        except PermissionError as error:
            raise NotPermitted(
                f"change setting {name}: not permitted", hint=lacking("CAP_NET_ADMIN")
            ) from error
        except OSError as error:
            raise NetworkError(f"set {name} to {value}: {error.strerror}") from error


def ensure_present(wanted: Mapping[str, str | int]) -> None:
    """The same for settings that a kernel without the part (IPv6, …) does not have."""
    ensure({name: value for name, value in wanted.items() if present(name)})
