"""A target is kept equal to a table, whatever fails and whoever claims what."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import Conflict, PodwireError
from podwire.state.reconcile import Reconciler
from podwire.state.table import Change, Table


class Row(msgspec.Struct, frozen=True):
    name: str
    items: dict[str, int]


class Store:
    """A target in memory. What is in `refuse` can be neither written nor removed."""

    name = "store"

    def __init__(self, content: Mapping[str, int] | None = None) -> None:
        self.content: dict[Hashable, Any] = dict(content or {})
        self.refuse: set[Hashable] = set()
        self.writes = 0

    def load(self) -> Mapping[Hashable, Any]:
        return self.content

    def items(self, row: Row) -> Mapping[Hashable, Any]:
        return dict(row.items)

    def write(self, items: Mapping[Hashable, Any]) -> Mapping[Hashable, PodwireError]:
        self.writes += len(items)
        self.content |= {item: value for item, value in items.items() if item not in self.refuse}
        return {item: Conflict(f"cannot write {item}") for item in items if item in self.refuse}

    def remove(self, keys: Iterable[Hashable]) -> Mapping[Hashable, PodwireError]:
        found = list(keys)
        for item in found:
            if item not in self.refuse:
                self.content.pop(item, None)
        return {item: Conflict(f"cannot remove {item}") for item in found if item in self.refuse}


def made(content: Mapping[str, int] | None = None) -> tuple[Table[Row], Store, Reconciler[Row]]:
    table: Table[Row] = Table("rows", lambda row: row.name)
    store = Store(content)
    reconciler = Reconciler(table, store, backoff=Backoff(0.001, 0.002))
    reconciler.load()
    return table, store, reconciler


def put(table: Table[Row], reconciler: Reconciler[Row], name: str, **items: int) -> None:
    old, new = table.get(name), Row(name, items)
    table.put(new)
    reconciler.step([Change(name, old, new)])


def delete(table: Table[Row], reconciler: Reconciler[Row], name: str) -> None:
    reconciler.step([Change(name, table.delete(name), None)])


def test_rows_are_written_changed_and_removed() -> None:
    table, store, reconciler = made()
    put(table, reconciler, "a", x=1, y=2)
    assert store.content == {"x": 1, "y": 2} and reconciler.status["a"].done
    put(table, reconciler, "a", y=3, z=4)
    assert store.content == {"y": 3, "z": 4}
    delete(table, reconciler, "a")
    assert store.content == {} and reconciler.status == {}


def test_what_is_there_already_is_not_written_again() -> None:
    table, store, reconciler = made({"x": 1, "old": 5})
    put(table, reconciler, "a", x=1)
    assert store.writes == 0
    assert store.content == {"x": 1, "old": 5}  # not ready: nothing unknown is removed
    reconciler.prune()
    assert store.content == {"x": 1}


def test_a_failed_write_is_tried_again() -> None:
    table, store, reconciler = made()
    store.refuse.add("x")
    put(table, reconciler, "a", x=1, y=2)
    assert store.content == {"y": 2}
    assert reconciler.errors() == {"a": "cannot write x"}
    reconciler.step()
    assert reconciler.status["a"].tries == 2
    store.refuse.clear()
    reconciler.step()
    assert store.content == {"x": 1, "y": 2} and not reconciler.errors() and reconciler.status["a"].done


def test_a_failed_removal_is_tried_again_although_the_row_is_gone() -> None:
    table, store, reconciler = made()
    put(table, reconciler, "a", x=1)
    store.refuse.add("x")
    delete(table, reconciler, "a")
    assert store.content == {"x": 1} and reconciler.errors() == {"a": "cannot remove x"}
    store.refuse.clear()
    reconciler.step()
    assert store.content == {} and reconciler.status == {}


def test_an_item_two_rows_claim_is_the_first_ones() -> None:
    table, store, reconciler = made()
    put(table, reconciler, "a", x=1)
    put(table, reconciler, "b", x=2)
    assert store.content == {"x": 1}
    assert reconciler.errors() == {"b": "x belongs to a already"}
    delete(table, reconciler, "b")
    assert store.content == {"x": 1} and not reconciler.errors()
    put(table, reconciler, "b", x=2)
    delete(table, reconciler, "a")
    assert store.content == {"x": 2} and not reconciler.errors()


def test_an_item_moves_from_row_to_row_without_being_away() -> None:
    table, store, reconciler = made()
    put(table, reconciler, "a", x=1)
    old, new = table.get("a"), Row("b", {"x": 1})
    table.delete("a")
    table.put(new)
    removed: list[Hashable] = []
    store.remove = lambda keys: removed.extend(keys) or {}  # type: ignore[func-returns-value,method-assign]
    reconciler.step([Change("a", old, None), Change("b", None, new)])
    assert removed == [] and store.content == {"x": 1}


def test_it_runs_beside_the_table() -> None:
    async def scenario() -> None:
        table: Table[Row] = Table("rows", lambda row: row.name)
        store = Store({"left": 1})
        reconciler = Reconciler(table, store, backoff=Backoff(0.001, 0.002))
        store.refuse.add("x")
        async with cancelling("reconcile", reconciler.run()):
            table.put(Row("a", {"x": 1, "y": 2}))
            await eventually(lambda: store.content.get("y") == 2, timeout=5, what="the first write")
            assert "left" in store.content
            table.mark_ready()
            await eventually(lambda: "left" not in store.content, timeout=5, what="the leftovers to go")
            assert reconciler.errors()
            store.refuse.clear()
            await eventually(lambda: not reconciler.errors(), timeout=5, what="the write to be tried again")
            assert store.content == {"x": 1, "y": 2}

    asyncio.run(scenario())


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from("abc"),
            st.dictionaries(st.sampled_from("wxyz"), st.integers(0, 2), max_size=3),
        ),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("refuse"), st.sampled_from("wxyz"), st.none()),
        st.tuples(st.just("relent"), st.none(), st.none()),
    ),
    max_size=20,
)


@given(actions, st.dictionaries(st.sampled_from("wxyz"), st.integers(0, 2)))
@settings(max_examples=200, deadline=None)
def test_in_the_end_the_target_is_what_the_rows_say(actions: Any, before: dict[str, int]) -> None:
    table, store, reconciler = made(before)
    first: dict[str, dict[str, int]] = {}  # item → row → value, in order of claims
    for action, name, items in actions:
        match action:
            case "put":
                known = table.get(name)
                for item in known.items if known else ():
                    if item not in items:
                        first[item].pop(name)
                for item, value in items.items():
                    first.setdefault(item, {})[name] = value
                put(table, reconciler, name, **items)
            case "delete" if name in table:
                for item in table.get(name).items:  # type: ignore[union-attr]
                    first[item].pop(name)
                delete(table, reconciler, name)
            case "refuse":
                store.refuse.add(name)
            case "relent":
                store.refuse.clear()
                reconciler.step()
    store.refuse.clear()
    reconciler.step()
    reconciler.prune()
    assert store.content == {item: next(iter(rows.values())) for item, rows in first.items() if rows}
    assert set(reconciler.status) == set(table.keys())


def test_what_a_target_lost_or_sees_otherwise_is_written_anew() -> None:
    table, store, reconciler = made()
    table.put(Row("a", {"x": 1, "y": 1}))
    reconciler.step([Change("a", None, table.get("a"))])
    store.content = {"y": 7}
    reconciler.anew()
    assert store.content == {"x": 1, "y": 1}
    writes = store.writes
    reconciler.anew()
    assert store.writes == writes, "what is there is not written again"


def test_how_it_went_is_counted() -> None:
    table, store, reconciler = made()
    table.put(Row("a", {"x": 1}))
    store.refuse = {"x"}
    reconciler.step([Change("a", None, table.get("a"))])
    reconciler.step()
    told = reconciler.attempts
    assert (told.successes, told.failures, told.in_a_row, told.error) == (0, 2, 2, "cannot write x")
    store.refuse = set()
    reconciler.step()
    assert (told.successes, told.failures, told.in_a_row) == (1, 2, 0)
    reconciler.step()
    assert told.successes == 1, "nothing was to be done"
