"""Nothing in the tree names the machine it was written on, or where its packages came from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {".git", ".venv", ".hypothesis", "build", "__pycache__", "node_modules"}
# Written in pieces: this file is searched too.
HOMES = re.compile(r"(?<![\w.-])/(?:ho" r"me|Us" r"ers|wo" r"rk)/[A-Za-z0-9]")
REGISTRIES = re.compile(
    r"pypi\.or"
    r"g|files\.python"
    r"hosted|deb\.debi"
    r"an|proxy\.gol"
    r"ang|registry\.np"
    r"mjs|--index-u"
    r"rl|GOPR"
    r"OXY",
    re.I,
)


def _files() -> list[Path]:
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(
            part in SKIPPED or part.endswith((".egg-info", "_cache")) for part in path.relative_to(ROOT).parts
        )
        and path.suffix not in {".so", ".o", ".png", ".pyc"}
    )


@pytest.mark.parametrize("pattern", [HOMES, REGISTRIES], ids=["homes", "registries"])
def test_no_development_machine_in_the_tree(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in _files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_this_checkout_is_not_named() -> None:
    if len(ROOT.parts) < 3:
        pytest.fail(f"the checkout is at {ROOT}, too short a path to look for")
    found = [
        str(path.relative_to(ROOT)) for path in _files() if str(ROOT) in path.read_text(errors="replace")
    ]
    assert not found
