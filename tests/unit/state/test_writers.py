"""Who writes a table is declared: readiness, views and ARCHITECTURE.md go by it, and the code does too."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, get_type_hints

import msgspec
import pytest

import podwire
from podwire.sources.watch import Sources
from podwire.state import tables as declared
from podwire.state.members import MemberTable, ReadMembers
from podwire.state.peers import Peers, ReadPeers
from podwire.state.selections import ReadSelections, Selections
from podwire.state.table import ReadTable, Table, Watch, Writers
from podwire.state.tables import Tables
from podwire.state.views import ReadTables
from podwire.state.writers import WRITERS, watched, written_by

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "src" / "podwire"
STAGES = ("sources", "ipam", "identity", "policy", "loadbalancer", "datapath", "hubble", "agent", "operator")
OWNERS = {"agent.stages"}  # makes the tables, and gives each stage its view


# Readiness


def rows(*writers: str) -> Table[str]:
    table: Table[str] = Table("rows", lambda row: row)
    table.declare(Writers(writers))
    return table


def test_a_table_is_ready_when_all_its_writers_have_said_so() -> None:
    table = rows("one", "other")
    assert not table.ready and table.waits_for == ("one", "other")
    table.mark_ready("other")
    table.mark_ready("other")
    assert not table.ready and table.waits_for == ("one",)
    table.mark_ready("one")
    assert table.ready and table.waits_for == ()


def test_readers_wake_with_the_last_of_them() -> None:
    async def main() -> None:
        table = rows("one", "other")
        with Watch(table) as watch:
            table.mark_ready("one")
            assert not watch.pending() and not watch.ready
            table.mark_ready("other")
            (batch,) = await asyncio.wait_for(watch.next(), 5)
            assert batch.ready and not batch
            table.mark_ready("one")
            assert not watch.pending()

    asyncio.run(main())


@pytest.mark.parametrize("writer", ["", "another"])
def test_nobody_else_can_say_so(writer: str) -> None:
    with pytest.raises(AssertionError, match="not declared to write rows"):
        rows("one").mark_ready(writer)


def test_a_table_without_declared_writers_has_one() -> None:
    table: Table[str] = Table("rows", lambda row: row)
    assert not table.ready
    table.mark_ready()
    assert table.ready


def test_a_writer_more_is_a_word_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mesh of clusters will have, whose pods come from somewhere else as well."""
    before = WRITERS["remote_endpoints"]
    more = msgspec.structs.replace(before, names=(*before.names, "clustermesh.watch"))
    monkeypatch.setattr(declared, "WRITERS", {**WRITERS, "remote_endpoints": more})
    table = Tables().remote_endpoints
    for writer in before.names:
        table.mark_ready(writer)
    assert table.waits_for == ("clustermesh.watch",)
    table.mark_ready("clustermesh.watch")
    assert table.ready


# The declaration and the code


def modules() -> Iterator[str]:
    """All that may write a table, as writers are named."""
    for stage in STAGES:
        found = import_module(f"podwire.{stage}")
        for one in walk_packages(found.__path__, f"{found.__name__}."):
            if not one.name.endswith("__main__"):
                yield one.name.removeprefix(f"{podwire.__name__}.")


def views(module: str) -> Iterator[type]:
    """The protocols in which a module says what it writes: what its functions take as their tables."""
    space = vars(import_module(f"podwire.{module}"))
    taken = {
        node.annotation.id
        for node in ast.walk(ast.parse(path(module).read_text()))
        if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name)
    }
    for one in map(space.get, sorted(taken)):
        if inspect.isclass(one) and one is not ReadTables and ReadTables in one.__mro__:
            yield one


def kinds(view: type) -> dict[str, Any]:
    """Table → its type, of those a protocol names itself."""
    getters = {name: one.fget for name, one in vars(view).items() if isinstance(one, property)}
    space = vars(import_module(view.__module__))
    found = {name: get_type_hints(getter, space)["return"] for name, getter in getters.items() if getter}
    return {name: getattr(kind, "__origin__", kind) for name, kind in found.items()}


def test_every_table_has_declared_writers_in_walk_order() -> None:
    tables = Tables()
    assert list(tables.names()) == list(WRITERS)
    assert all(table.writers is WRITERS[table.name] and table.writers.names for table in tables)


def test_who_may_write_a_table_is_who_is_declared_to() -> None:
    """What mypy lets a module write is what its view says; a view that says more, or less, is found here."""
    writing: dict[str, set[str]] = {name: set() for name in WRITERS}
    for module in modules():
        for view in views(module):
            for name, kind in kinds(view).items():
                assert issubclass(kind, Table), f"{module} says it writes {name}, and cannot"
                writing[name].add(module)
    wanted = {
        name: {one.partition("/")[0] for one in (*writers.names, *writers.editors)} - OWNERS
        for name, writers in WRITERS.items()
    }
    assert writing == wanted


def test_only_who_makes_the_tables_has_all_of_them_to_write() -> None:
    having = set()
    for module in modules():
        for node in ast.walk(ast.parse(path(module).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "podwire.state.tables":
                having |= {module for one in node.names if one.name == "Tables"}
    assert having == OWNERS


def path(module: str) -> Path:
    found = import_module(f"podwire.{module}").__file__
    assert found is not None
    return Path(found)


def test_every_writer_says_when_it_has_put_all_there_was() -> None:
    silent = {
        writer
        for writers in WRITERS.values()
        for writer in writers.names
        if ".mark_ready(" not in path(writer.partition("/")[0]).read_text()
    }
    assert silent == set()


def test_each_resource_that_is_followed_writes_the_table_that_is_declared() -> None:
    tables = Tables()
    sources = Sources(tables, node_name="n1", parse=lambda *_: ())
    followed = {(watched(family.resource.plural), family.table.name) for family in sources.families}
    followed |= {(watched("ciliumendpoints"), "reported_endpoints")}
    assert followed == {
        (writer, name)
        for name, writers in WRITERS.items()
        for writer in writers.names
        if writer.startswith(watched(""))
    }
    for family in sources.families:
        family.mark_ready()
    assert all(table.ready for table in tables if table.writers.names[0].startswith(watched("")))


@pytest.mark.parametrize(
    ("reading", "writing"),
    [(ReadTable, Table), (ReadMembers, MemberTable), (ReadPeers, Peers), (ReadSelections, Selections)],
)
def test_who_reads_can_change_nothing(reading: type, writing: type) -> None:
    more = {name for name in dir(writing) if not name.startswith("_")} - set(dir(reading))
    assert {"put", "delete", "replace", "mark_ready"} <= more
    assert issubclass(writing, reading)


def test_all_tables_can_be_read() -> None:
    found = kinds(ReadTables)
    tables = Tables()
    assert list(found) == list(tables.names())
    for name, kind in found.items():
        assert isinstance(tables.named(name), kind) and not issubclass(kind, Table)


# The document


def test_architecture_tells_who_writes_each_table() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("| table | a row is | written by | read by |")[2]
    told: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines()[2:]:
        cells = re.split(r"(?<!\\) \| ", line.strip("| "))
        for name in cells[0].split(", "):
            assert name not in told, f"{name} stands there twice"
            told[name] = cells[2]
    assert told == {name: written_by(name) for name in WRITERS}
