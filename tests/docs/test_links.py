"""What the documents point at exists: links, anchors, files and modules named in code marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("labs/**/*.md")])
FOLDERS = ("api", "bpf", "deploy", "docs", "labs", "src", "tests", "tools")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _prose(path: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", _prose(path), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", text)).lower().replace(" ", "-") for text in headings}


def links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(path)):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{link}: there is no such file"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{link}: no such heading in {_name(file)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_named_files_exist(path: Path) -> None:
    """`bpf/abi/policy.h` in code marks, with `*` as in a shell and `:function` behind it allowed."""
    for mark in re.findall(r"`([^`\n]+)`", _prose(path)):
        if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]+(?::\w+)?", mark):
            file = mark.split(":")[0].rstrip("/")
            assert list(ROOT.glob(file)), f"`{mark}`: there is no such file"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_named_modules_exist(path: Path) -> None:
    """`podwire.hubble.store` is a module, or something in one."""
    for mark in re.findall(r"`(podwire(?:\.\w+)+)(?:\(\))?`", _prose(path)):
        parts = mark.removesuffix("()").split(".")
        if parts[-1] in ("sock", "json", "yaml", "service"):
            continue  # a file
        assert any(_module(parts[:length]) for length in (len(parts), len(parts) - 1) if length > 1), (
            f"`{mark}`: there is no such module"
        )


def _module(parts: list[str]) -> bool:
    file = ROOT / "src" / Path(*parts)
    return file.is_dir() or file.with_suffix(".py").exists()
