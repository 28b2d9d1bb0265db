"""The reference pages say all that the code declares: drop reasons, dependencies, options, tables, …"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from podwire.abi.enums import DROP_TEXT, DropReason

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME: list[str] = PROJECT["dependencies"]
DEVELOPMENT: list[str] = PROJECT["optional-dependencies"]["dev"]
MODULES = {"dnspython": "dns", "grpcio": "grpc", "protobuf": "google.protobuf", "PyYAML": "yaml"}


def _cells(page: str) -> list[list[str]]:
    """The lines of all tables of a page."""
    lines = (REFERENCE / page).read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")
    ]


@pytest.mark.parametrize("reason", DropReason, ids=lambda reason: reason.name)
def test_each_drop_reason_is_explained(reason: DropReason) -> None:
    rows = [row for row in _cells("drops.md") if row[0] == str(reason.value)]
    assert len(rows) == 1, f"docs/reference/drops.md needs one line for {reason.value}"
    _, name, text, when, what_to_do = rows[0]
    assert (name, text) == (reason.name, DROP_TEXT[reason])
    assert when and what_to_do


def test_no_other_drop_reason_is_explained() -> None:
    listed = {int(row[0]) for row in _cells("drops.md") if row[0].isdigit()}
    assert listed == {reason.value for reason in DropReason}


@pytest.mark.parametrize("requirement", [*RUNTIME, *DEVELOPMENT])
def test_each_dependency_is_justified(requirement: str) -> None:
    name, _, version = requirement.partition("==")
    rows = [row for row in _cells("dependencies.md") if name in re.split(r"[ ,]+", row[0])]
    assert len(rows) == 1, f"docs/reference/dependencies.md needs one line for {name}"
    assert not version or version in rows[0][0], f"documented as {rows[0][0]}, pinned as {requirement}"


def test_no_other_dependency_is_listed() -> None:
    known = {requirement.partition("==")[0] for requirement in [*RUNTIME, *DEVELOPMENT]}
    for row in _cells("dependencies.md"):
        if row[0] not in ("library", "---"):
            assert set(re.split(r"[ ,]+", row[0])) & known, f"{row[0]} is not in pyproject.toml"


@pytest.mark.parametrize("requirement", RUNTIME)
def test_each_dependency_is_used(requirement: str) -> None:
    name = requirement.partition("==")[0]
    module = re.escape(MODULES.get(name, name))
    importing = re.compile(rf"^\s*(?:import|from) {module}\b", re.M)
    sources = (ROOT / "src" / "podwire").rglob("*.py")
    assert any(importing.search(path.read_text()) for path in sources), f"nothing imports {name}: drop it"


def test_generated_pages_are_as_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "tools/gen_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page", ["options.md", "tables.md", "maps.md", "metrics.md", "drops.md", "dependencies.md"]
)
def test_reference_pages_exist(page: str) -> None:
    assert (REFERENCE / page).stat().st_size > 0


def test_a_constants_help_is_one_text() -> None:
    """However many literals it is written in."""
    rows = (
        (REFERENCE / "options.md")
        .read_text()
        .partition("## Constants")[2]
        .split("| --- | --- | --- | --- |")[1]
    )
    for line in rows.strip().splitlines():
        assert line.count(" | ") == 3 and line.endswith(" |"), line
        assert '"' not in line, line
