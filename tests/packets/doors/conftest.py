"""Small programs compiled on the spot, and a bpf filesystem directory of one's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.packets.doors.node import plan

from podwire.datapath.programs import Programs
from podwire.net import namespaces

PRELUDE = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def compile_bpf(tmp_path: Path) -> Callable[[str], str]:
    """C text (behind the usual includes) → path of an object file."""

    def compile(text: str, name: str = "test") -> str:
        c, o = tmp_path / f"{name}.c", tmp_path / f"{name}.o"
        c.write_text(PRELUDE + text)
        command = ["clang-16", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-I/usr/include/x86_64-linux-gnu"]
        subprocess.run([*command, "-c", c, "-o", o], check=True)
        return str(o)

    return compile


@pytest.fixture
def pins(bpffs: str) -> Iterator[str]:
    """An empty directory on a bpf filesystem, gone afterwards with all that is pinned in it."""
    path = os.path.join(bpffs, f"podwire-test-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    os.mkdir(path)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def netns() -> Iterator[str]:
    """An empty network namespace of one's own."""
    name = f"podwire-doors-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    namespaces.create(name)
    yield name
    namespaces.delete(name)


@pytest.fixture
def programs(pins: str) -> Iterator[Programs]:
    loaded = Programs.load(plan(pins))
    yield loaded
    loaded.remove()
