"""What import-linter's contracts do not say of the imports between podwire's modules."""

from __future__ import annotations

import ast
import re
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "src/podwire").rglob("*.py")
}
PURE = re.compile(r"\bPure\b")
# What a value's own class does though it is no value: ask the clock.
CLOCK = {"now", "utcnow", "today"}


def imports() -> dict[str, set[str]]:
    """Module to those it imports, wherever in the file: in functions and for types as well."""
    graph = grimp.build_graph("podwire", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Which is understood without the other? Modules in a circle are one module, in several files."""
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(f"imported in a circle: {' ← '.join(error.args[1])}")


def under_contract() -> set[str]:
    """The modules that `.importlinter` holds to be pure."""
    contracts = ConfigParser()
    assert contracts.read(ROOT / ".importlinter")
    return set(contracts["importlinter:contract:pure-modules"]["source_modules"].split())


def test_who_calls_itself_pure_is_held_to_it() -> None:
    """The docstring is a promise and the contract its check: neither without the other."""
    promised = {
        module
        for module, path in SOURCES.items()
        if PURE.search(ast.get_docstring(ast.parse(path.read_text())) or "")
    }
    assert promised, "no docstring was read"
    assert promised == under_contract()


def test_pure_modules_ask_no_clock() -> None:
    """What import-linter cannot see: `datetime` is a type as well as a clock, and `open` needs no import."""
    asked = []
    for module, path in SOURCES.items():
        if not any(module == one or module.startswith(f"{one}.") for one in under_contract()):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if (isinstance(called, ast.Attribute) and called.attr in CLOCK) or (
                isinstance(called, ast.Name) and called.id in ("open", "now")
            ):
                asked.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    assert asked == []
