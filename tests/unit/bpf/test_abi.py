"""Python's mirror of bpf/abi against what the compiler made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podwire.abi import enums, structs
from podwire.bpf.object import differences  # noqa: F401  the door can be imported without root

ROOT = Path(__file__).parents[3]
OBJECTS = sorted((ROOT / "build" / "bpf").glob("*.bpf.o"))
MIRRORED = {one.NAME: one for one in vars(structs).values() if isinstance(one, type) and hasattr(one, "NAME")}


def test_the_committed_files_are_what_the_headers_say() -> None:
    command = [sys.executable, str(ROOT / "tools" / "gen_abi.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_objects_are_built() -> None:
    """Otherwise the next test has no cases, and passes."""
    sources = {path.stem for path in (ROOT / "bpf").glob("*.bpf.c")}
    assert sources
    assert {path.stem for path in OBJECTS} == sources, "make build makes them"


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_sizes_offsets_and_values_in_the_shipped_objects(path: Path) -> None:
    dump = subprocess.run(
        ["bpftool", "btf", "dump", "-j", "file", str(path)], capture_output=True, text=True, check=True
    )
    types: list[dict[str, Any]] = json.loads(dump.stdout)["types"]
    # An object's BTF has also the kernel's types that it relocates by; ours win by having all our members.
    seen = set()
    for one in types:
        mirror = MIRRORED.get(one["name"])
        if one["kind"] != "STRUCT" or mirror is None:
            continue
        offsets = {member["name"]: member["bits_offset"] // 8 for member in one["members"]}
        assert one["size"] == mirror.SIZE, one["name"]
        assert offsets == mirror.OFFSETS, one["name"]
        seen.add(one["name"])
    assert seen >= {"endpoint", "ct_key", "ct_entry", "policy_key"} or path.name == "sock.bpf.o"
    reasons = {
        value["name"]: value["val"]
        for one in types
        if one["kind"] == "ENUM" and one["name"] == "drop_reason"
        for value in one["values"]
    }
    for name, value in reasons.items():
        assert enums.DropReason[name.removeprefix("DROP_")] == value


def test_every_drop_reason_has_a_text() -> None:
    assert set(enums.DROP_TEXT) == set(enums.DropReason)
    assert all(enums.DROP_TEXT.values())
    assert len({*enums.DropReason}) == len(enums.DropReason.__members__)
