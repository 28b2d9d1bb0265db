"""Every failure podwire names.

::

    PodwireError                 one clear sentence, a hint what to do next, an exit code
    ├── UsageError               the command line is wrong                         exit 2
    ├── ConfigError              an option or a configuration file is wrong        exit 2
    ├── InvalidObject            an object is wrong at a path (spec.ingress[0]…)
    ├── NotFound                 what was asked for does not exist
    ├── Conflict                 it exists already, or somebody changed it meanwhile
    ├── NotPermitted             root or a capability is missing
    ├── NotSupported             this kernel (or this version) does not have it
    ├── KernelError              a BPF call failed; carries errno
    │   ├── MapFull              a map has no room; what is there stays
    │   └── VerifierRejected     a program was not loaded; carries the verifier's log
    ├── NetworkError             a link, address, route or namespace could not be made
    ├── ApiError                 the Kubernetes API answered with a Status
    ├── Unreachable              a socket or server does not answer
    └── StorageError             a file or database could not be read or written

Each layer wraps what it catches with a verb phrase and ``raise … from error``; a person sees
``Error: <sentence>`` and the hint, and with ``-v`` the causes.
"""

from __future__ import annotations

import errno as _errno
import os


class PodwireError(Exception):
    """One clear sentence for a person, and what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(PodwireError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(PodwireError):
    """An option or a configuration file is wrong."""

    exit_code = 2


class InvalidObject(PodwireError):
    """An object is wrong at `path`, for example ``spec.ingress[0].toPorts[1].ports[0].port``."""

    def __init__(self, path: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {problem}" if path else problem, hint=hint)
        self.path = path
        self.problem = problem


class NotFound(PodwireError):
    """What was asked for does not exist."""


class Conflict(PodwireError):
    """It exists already, or somebody changed it meanwhile."""


class NotPermitted(PodwireError):
    """Root or a capability is missing."""


def lacking(capability: str) -> str:
    """A hint where the kernel said EPERM. Root in a container may still be without the capability."""
    if os.geteuid() != 0:
        return "run as root"
    return f"podwire needs {capability}; a container may have to be started with it"


class NotSupported(PodwireError):
    """This kernel does not have `feature`; kernels from `since` on do."""

    def __init__(self, feature: str, *, since: str | None = None, hint: str | None = None) -> None:
        known = f" (Linux {since} and later have it)" if since else ""
        super().__init__(f"{feature} is not supported here{known}", hint=hint)
        self.feature = feature
        self.since = since


class KernelError(PodwireError):
    """`action` failed in the kernel with `errno`."""

    def __init__(self, action: str, errno: int, *, hint: str | None = None) -> None:
        name = _errno.errorcode.get(errno, str(errno))
        super().__init__(f"{action}: {os.strerror(errno)} ({name})", hint=hint)
        self.action = action
        self.errno = errno


class MapFull(KernelError):
    """Map `name` has no room for more than `capacity` entries. What it holds stays."""

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(
            f"map {name} is full at {capacity} entries",
            _errno.E2BIG,
            hint="raise its size in the configuration and restart the agent; entries already written stay",
        )
        self.message = self.action  # "Argument list too long" would add nothing
        self.name = name
        self.capacity = capacity


class VerifierRejected(KernelError):
    """The verifier did not accept `program`; `log` is what it said."""

    def __init__(self, program: str, errno: int, log: str) -> None:
        super().__init__(f"load program {program}", errno, hint="run with --debug to see the verifier's log")
        self.program = program
        self.log = log


class NetworkError(PodwireError):
    """A link, address, route, rule or namespace could not be made, changed or removed."""


class ApiError(PodwireError):
    """The Kubernetes API answered `code` with `reason` (metav1.Status)."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Unreachable(PodwireError):
    """A socket or server does not answer."""


class StorageError(PodwireError):
    """A file or database could not be read or written."""
