"""The numbers and habits CONTRIBUTING.md names, counted.

What ruff, mypy, clang-format and import-linter cannot say: sizes, the single place of drops, no
conditional compilation, no module without a word about what it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = (ROOT / "src/podwire/api", ROOT / "src/podwire/abi")
PROGRAM_LINES, HEADER_LINES, C_FUNCTION_LINES, C_PARAMETERS = 300, 400, 60, 5
PYTHON_LINES, PYTHON_FUNCTION_LINES = 400, 60
# The walk is told in one function, top to bottom; cutting it would hide its order.
ONE_LIST = {"src/podwire/agent/wiring.py": "_walk"}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

BPF = sorted([*ROOT.glob("bpf/*.c"), *ROOT.glob("bpf/lib/*.h"), *ROOT.glob("bpf/abi/*.h")])
PYTHON = sorted(
    path
    for folder in ("src", "tests", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if not any(path.is_relative_to(generated) for generated in GENERATED)
)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _without_comments(text: str) -> str:
    """C with its comments blanked, lines kept."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", lambda found: re.sub(r"[^\n]", " ", found.group()), text, flags=re.S)


def c_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, lines and number of parameters of each function; kernel style puts its braces in column 0."""
    lines = _without_comments(text).splitlines()
    opened = None
    for number, line in enumerate(lines):
        if line.startswith("{"):
            opened = number
        elif line.startswith("}") and opened is not None:
            first = opened
            while first > 0 and lines[first - 1].strip() and not re.match(r"[#}]|.*;\s*$", lines[first - 1]):
                first -= 1
            signature = " ".join(lines[first:opened])
            found = re.search(r"(\w+)\s*\(([^()]*)\)\s*$", signature)
            if found:
                parameters = [part for part in found[2].split(",") if part.strip() not in ("", "void")]
                yield found[1], number - opened - 1, len(parameters)
            opened = None


@pytest.mark.parametrize("path", BPF, ids=_name)
def test_c_sizes(path: Path) -> None:
    text = path.read_text()
    limit = PROGRAM_LINES if path.suffix == ".c" else HEADER_LINES
    assert len(text.splitlines()) <= limit, f"longer than {limit} lines: give a noun its own header"
    for name, lines, parameters in c_functions(text):
        assert lines <= C_FUNCTION_LINES, f"{name}() has {lines} lines, more than {C_FUNCTION_LINES}"
        assert parameters <= C_PARAMETERS, f"{name}() has {parameters} parameters: pass one struct flow *"


@pytest.mark.parametrize("path", BPF, ids=_name)
def test_c_has_no_conditional_compilation(path: Path) -> None:
    """Features are `const volatile` constants: one object per hook, and the verifier removes what is off."""
    text = _without_comments(path.read_text())
    assert not re.findall(r"^\s*#\s*(?:if|ifdef|ifndef|elif|else|endif)\b.*", text, flags=re.M)
    if path.suffix == ".h":
        assert re.search(r"^#pragma once$", text, flags=re.M), "a header begins with #pragma once"


@pytest.mark.parametrize("path", BPF, ids=_name)
def test_only_drop_h_drops(path: Path) -> None:
    """A packet is dropped with a reason, in one function that counts it and emits the event."""
    if path.name == "drop.h":
        return
    assert not re.findall(r"return\s+(?:TC_ACT_SHOT|XDP_DROP)\b", _without_comments(path.read_text()))


@pytest.mark.parametrize("path", BPF, ids=_name)
def test_c_names_its_license(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause" in first


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_python_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= PYTHON_LINES, f"longer than {PYTHON_LINES} lines: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno and _decides(node):
            if ONE_LIST.get(_name(path)) == node.name:
                continue
            lines = node.end_lineno - node.lineno + 1
            assert lines <= PYTHON_FUNCTION_LINES, f"{node.name}() has {lines} lines"


def _decides(function: ast.AST) -> bool:
    """A function that only lists things (all tables, all kinds) may be as long as the list."""
    branching = ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.Match
    return any(isinstance(node, branching) for node in ast.walk(function))


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_python_modules_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert path.stem not in EMPTY_NAMES, f"{path.stem} says nothing: name it after what it holds"
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "no module docstring"


@pytest.mark.parametrize("path", [*PYTHON, *BPF], ids=_name)
def test_nothing_is_left_to_do(path: Path) -> None:
    found = re.findall(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b", path.read_text())
    assert not found, "finish it or say in an issue what is missing"


def test_the_counting_counts() -> None:
    text = "/* { */\nstatic int a(struct flow *flow,\n\t     int b)\n{\n\treturn 0;\n}\n\nint c(void)\n{\n}\n"
    assert list(c_functions(text)) == [("a", 1, 2), ("c", 0, 0)]
