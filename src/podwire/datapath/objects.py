"""Which compiled objects a kernel takes: the build makes each source twice (``bpf/kernel``).

``modern`` needs the features of MODERN; ``legacy`` does without them, from Linux 5.10 on, and lies in
a directory of that name beside the others. Kernels that have not even what REQUIRED names are refused
in one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import podwire
from podwire.base.errors import NotFound, NotSupported
from podwire.bpf import probe

MODERN = ("pointers to functions", "fetch atomics", "bpf_set_retval")
REQUIRED = ("kernel BTF", "ring buffer", "LPM trie", "bpf_redirect_peer", "bpf_redirect_neigh")
OLDEST = "5.10"


def variant() -> str:
    """``modern`` or ``legacy``: what this kernel takes."""
    return "legacy" if probe.missing(MODERN) else "modern"


def require_kernel() -> None:
    """NotSupported, with all that is missing, on a kernel that no object loads on."""
    if missing := probe.missing(REQUIRED):
        raise too_old(os.uname().release, missing)


def too_old(release: str, missing: Sequence[probe.Feature]) -> NotSupported:
    """What is said about kernel `release`, which has not what is `missing`."""
    named = ", ".join(f"{one.name} (Linux {one.since})" for one in missing)
    return NotSupported(
        f"podwire on Linux {release}, which is without {named},",
        since=OLDEST,
        hint="docs/reference/kernels.md says what works from which kernel on",
    )


def directory(configured: str = "") -> str:
    """Where the objects for this kernel are: below `configured`, or below what was installed."""
    base = Path(configured or _installed())
    chosen = base / "legacy" if base.is_dir() and variant() == "legacy" else base
    if not (chosen / "lxc.bpf.o").exists():
        raise NotFound(
            f"there are no compiled BPF objects in {chosen}", hint="run `make build`, or set object-dir"
        )
    return str(chosen)


def _installed() -> str:
    """In the package, or in a source tree's build directory."""
    package = Path(podwire.__file__).parent
    for candidate in (package / "bpf" / "objects", package.parent.parent / "build" / "bpf"):
        if (candidate / "lxc.bpf.o").exists():
            return str(candidate)
    raise NotFound("there are no compiled BPF objects", hint="run `make build`, or set object-dir")
