"""The numbers and habits CONTRIBUTING.md names, counted.

What ruff, mypy, clang-format and import-linter cannot say: sizes, the single place of drops, no
conditional compilation, no module without a word about what it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = (ROOT / "src/podwire/api", ROOT / "src/podwire/abi")
PROGRAM_LINES, HEADER_LINES, C_FUNCTION_LINES, C_PARAMETERS = 300, 400, 60, 5
PYTHON_LINES, PYTHON_FUNCTION_LINES = 400, 60
# The walk is told in one function, top to bottom; cutting it would hide its order.
ONE_LIST = {"src/podwire/agent/wiring.py": "_walk"}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

CONDITIONAL = re.compile(r"^\s*#\s*(?:if|ifdef|ifndef|elif|else|endif)\b.*", re.M)

BPF = sorted(
    [
        *ROOT.glob("bpf/*.c"),
        *ROOT.glob("bpf/lib/*.h"),
        *ROOT.glob("bpf/abi/*.h"),
        *ROOT.glob("bpf/kernel/*.h"),
        *ROOT.glob("bpf/ctx/*.h"),
    ]
)
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


def test_c_sizes() -> None:
    wrong = []
    for path in BPF:
        text, name = path.read_text(), _name(path)
        limit = PROGRAM_LINES if path.suffix == ".c" else HEADER_LINES
        if len(text.splitlines()) > limit:
            wrong.append(f"{name} is longer than {limit} lines: give a noun its own header")
        for function, lines, parameters in c_functions(text):
            if lines > C_FUNCTION_LINES:
                wrong.append(f"{name}: {function}() has {lines} lines, more than {C_FUNCTION_LINES}")
            if parameters > C_PARAMETERS:
                wrong.append(f"{name}: {function}() has {parameters} parameters: pass one struct flow *")
    assert not wrong, "\n".join(wrong)


def test_c_has_no_conditional_compilation() -> None:
    """Features are `const volatile` constants: one object per hook, and the verifier removes what is off."""
    wrong = []
    for path in BPF:
        text = _without_comments(path.read_text())
        wrong += [f"{_name(path)}: {line.strip()}" for line in CONDITIONAL.findall(text)]
        if path.suffix == ".h" and not re.search(r"^#pragma once$", text, flags=re.M):
            wrong.append(f"{_name(path)}: a header begins with #pragma once")
    assert not wrong, "\n".join(wrong)


def test_the_headers_for_kernels_have_the_same_names() -> None:
    """A name that only one of them has compiles for its kernels alone."""
    declared = re.compile(r"^#define (\w+)|^static __always_inline \w+ (\w+)\(", re.M)
    modern, legacy = (
        set(declared.findall((ROOT / "bpf/kernel" / name).read_text())) for name in ("modern.h", "legacy.h")
    )
    assert modern == legacy
    # Marked otherwise, a function would be global for kernels that refuse its pointers.
    marked = [path for path in BPF if re.search(r"^__noinline", path.read_text(), re.M)]
    assert not marked, "mark functions of their own __function"


def test_the_headers_for_contexts_have_the_same_names() -> None:
    """What is written on packets of the stack must compile for frames of a driver."""
    declared = re.compile(
        r"^#define (?:(__ctx\w+|CTX_PASS|CTX_DROP|CTX_SECTION)\b)|^static __always_inline \w+ (ctx_\w+)\(",
        re.M,
    )
    skb, xdp = (set(declared.findall((ROOT / "bpf/ctx" / name).read_text())) for name in ("skb.h", "xdp.h"))
    assert skb == xdp and len(skb) > 10
    # Nothing that both share knows which it is.
    shared = [path for path in BPF if path.parent.name == "lib" and "struct __ctx_buff" in path.read_text()]
    assert {"packet.h", "parse.h", "translate.h", "event.h"} <= {path.name for path in shared}
    for path in shared:
        assert not re.search(r"bpf_(skb|xdp|l3|l4)_|__sk_buff|xdp_md|TC_ACT_|XDP_", path.read_text()), (
            path.name
        )


def test_only_drop_h_drops() -> None:
    """A packet is dropped with a reason, in one function that counts it and emits the event."""
    dropping = re.compile(r"return\s+(?:TC_ACT_SHOT|XDP_DROP|CTX_DROP)\b")
    wrong = [_name(path) for path in BPF if dropping.search(_without_comments(path.read_text()))]
    assert wrong == ["bpf/lib/drop.h"]


def test_c_names_its_license() -> None:
    spdx = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"
    assert not [_name(path) for path in BPF if spdx not in path.read_text().splitlines()[0]]


def test_python_sizes() -> None:
    wrong = []
    for path, text, tree in _python():
        lines = len(text.splitlines())
        if lines > PYTHON_LINES:
            wrong.append(f"{path} has {lines} lines, more than {PYTHON_LINES}: split it")
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if ONE_LIST.get(path) == node.name or not _decides(node):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > PYTHON_FUNCTION_LINES:
                wrong.append(f"{path}: {node.name}() has {lines} lines, more than {PYTHON_FUNCTION_LINES}")
    assert not wrong, "\n".join(wrong)


def _decides(function: ast.AST) -> bool:
    """A function that only lists things (all tables, all kinds) may be as long as the list."""
    branching = ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.Match
    return any(isinstance(node, branching) for node in ast.walk(function))


def _python() -> Iterator[tuple[str, str, ast.Module]]:
    for path in PYTHON:
        text = path.read_text()
        yield _name(path), text, ast.parse(text)


def test_python_modules_say_what_they_are() -> None:
    wrong = []
    for path, text, tree in _python():
        if Path(path).stem in EMPTY_NAMES:
            wrong.append(f"{path}: the name says nothing: name it after what it holds")
        if text.strip() and not ast.get_docstring(tree):
            wrong.append(f"{path} has no module docstring")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_to_do() -> None:
    """Finish it, or say in an issue what is missing."""
    promise = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
    assert not [_name(path) for path in [*PYTHON, *BPF] if promise.search(path.read_text())]


def test_the_counting_counts() -> None:
    text = "/* { */\nstatic int a(struct flow *flow,\n\t     int b)\n{\n\treturn 0;\n}\n\nint c(void)\n{\n}\n"
    assert list(c_functions(text)) == [("a", 1, 2), ("c", 0, 0)]
