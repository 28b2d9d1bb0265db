"""Boot each kernel once, two at a time, and do there all that the tests want to know about.

One guest for many checks: booting is quick, but in an emulated machine every start of Python is not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE = "8"  # emulated, Python is some ten times slower; most limits have room of their own
UP_WITHIN = "300"  # s for a sandbox; 16 on an idle machine
OTHER_CLANG = ROOT / "build" / "clang-19" / "bpf"

# Those that take longest first, so that the others fill the time beside them.
KERNELS: dict[str, tuple[str, ...]] = {
    "6.1": ("--demo", "--packets", "--takeover"),  # the newest before tcx
    "6.12": ("--demo", "--packets"),
    "5.10": ("--demo",),
    "6.18": ("--demo",),
    "newest": ("--demo",),
}
# What takes a quarter of an hour is left to `make test-kernels-whole`.
WHOLE = bool(os.environ.get("PODWIRE_KERNELS_WHOLE"))
LONG = ("--packets", "--takeover")
CLANG_19_ON = ("6.1",)


class NotFetched(Exception):
    """The kernels cannot be had here."""


@dataclass(frozen=True)
class Guest:
    """What a guest left behind."""

    version: str
    out: Path
    said: str
    seconds: float

    @cached_property
    def kernel(self) -> Any:
        """`kernel.json`; what the guest said, where it has left none."""
        path = self.out / "kernel.json"
        assert path.exists(), f"the guest with {self.version} ended early:\n{self.said}"
        return json.loads(path.read_text())

    @property
    def phases(self) -> dict[str, float]:
        path = self.out / "phases.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def text(self, name: str) -> str:
        path = self.out / name
        assert path.exists(), f"the guest with {self.version} left no {name}:\n{self.said}"
        return path.read_text()


def fetch() -> float:
    """Seconds it took to have all kernels here."""
    start = time.monotonic()
    done = subprocess.run(
        [HERE / "get", *KERNELS], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise NotFetched(done.stdout.strip().rpartition("\n")[2] or f"exit code {done.returncode}")
    return time.monotonic() - start


def clang_19() -> bool:
    """Objects of another compiler, where it is installed; whether there are."""
    if shutil.which("clang-19") is None or shutil.which("llvm-strip-19") is None:
        return False
    build = OTHER_CLANG.parent.relative_to(ROOT)
    words = ("make", "-s", "objects", f"BUILD={build}", "CLANG=clang-19", "LLVM_STRIP=llvm-strip-19")
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return True


def boot(version: str, out: Path, extra: tuple[str, ...]) -> Guest:
    start = time.monotonic()
    bound = "7200" if WHOLE else "2400"  # a guest's Python is slow, and there may be other work here
    words = [HERE / "run", "-c", "1", "-m", "4G", "-t", bound, "-o", out, version, "--"]
    words += [
        "env",
        f"PODWIRE_PATIENCE={PATIENCE}",
        f"PODWIRE_UP_TIMEOUT={UP_WITHIN}",
        ROOT / ".venv/bin/python",
        HERE / "inside.py",
    ]
    done = subprocess.run(
        [*map(str, words), *(each for each in KERNELS[version] if WHOLE or each not in LONG), *extra],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Guest(version, out, done.stdout[-4000:], time.monotonic() - start)


def start_all(directory: Path, other_clang: bool) -> dict[str, Future[Guest]]:
    """As many guests at once as there are CPUs; PODWIRE_GUESTS says otherwise."""
    pool = ThreadPoolExecutor(int(os.environ.get("PODWIRE_GUESTS", os.cpu_count() or 1)))
    started = {
        version: pool.submit(
            boot,
            version,
            directory / version,
            ("--objects", str(OTHER_CLANG)) if other_clang and version in CLANG_19_ON else (),
        )
        for version in KERNELS
    }
    pool.shutdown(wait=False)
    return started
