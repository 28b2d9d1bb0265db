"""Tables: rows, indexes, and streams of changes that coalesce and are never wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.base.aio import cancelling
from podwire.state.table import Change, Table, Watch, until_ready
from podwire.state.tables import Tables


class Row(msgspec.Struct, frozen=True):
    key: int
    value: str
    tags: tuple[str, ...] = ()


def table() -> Table[Row]:
    return Table("rows", lambda row: row.key, indexes={"tag": lambda row: row.tags})


def test_rows_have_revisions() -> None:
    rows = table()
    assert rows.put(Row(1, "a")) and not rows.put(Row(1, "a"))
    assert (rows.revision, rows.revision_of(1), rows.revision_of(2)) == (1, 1, 0)
    rows.put(Row(2, "b"))
    rows.put(Row(1, "c"))
    assert (rows.revision, rows.revision_of(1), rows.revision_of(2)) == (3, 3, 2)
    assert rows.delete(1) == Row(1, "c") and rows.delete(1) is None
    assert (rows.revision, rows.revision_of(1), len(rows), 1 in rows) == (4, 0, 1, False)


def test_the_first_batch_is_all_there_is_and_changes_coalesce() -> None:
    rows = table()
    rows.put(Row(1, "a"))
    reader = rows.changes()
    assert reader.take().changes == (Change(1, None, Row(1, "a")),)
    rows.put(Row(1, "b"))
    rows.put(Row(1, "c"))
    rows.put(Row(2, "x"))
    rows.delete(2)
    assert reader.take().changes == (Change(1, Row(1, "a"), Row(1, "c")),)
    rows.put(Row(1, "d"))
    rows.put(Row(1, "c"))
    assert not reader.take()
    assert not reader.pending()


def test_readers_are_independent_and_can_leave() -> None:
    rows = table()
    one, two = rows.changes(), rows.changes()
    rows.put(Row(1, "a"))
    assert one.take() and not one.take()
    one.close()
    rows.put(Row(2, "b"))
    assert not one.pending() and len(two.take().changes) == 2


def test_replace_touches_only_its_part() -> None:
    rows = table()
    rows.replace([Row(1, "a"), Row(2, "a"), Row(3, "b")])
    rows.replace([Row(2, "a"), Row(4, "a")], where=lambda row: row.value == "a")
    assert sorted(row.key for row in rows) == [2, 3, 4]


def test_ready_is_told_once_and_wakes() -> None:
    async def scenario() -> None:
        one, two = table(), table()
        async with cancelling("mark", mark(one, two)):
            await until_ready(one, two)
        assert one.ready and two.ready

    async def mark(*tables: Table[Row]) -> None:
        for rows in tables:
            await asyncio.sleep(0)
            rows.mark_ready()
        await asyncio.Event().wait()

    asyncio.run(scenario())


def test_a_watch_gives_one_batch_per_table() -> None:
    async def scenario() -> None:
        one, two = table(), table()
        two.put(Row(2, "b"))
        with Watch(one, two) as watch:
            first = await watch.next()
            assert [len(batch.changes) for batch in first] == [0, 1]
            assert not watch.pending()
            one.put(Row(1, "a"))
            assert watch.pending()
            assert [len(batch.changes) for batch in watch.take()] == [1, 0]
            watch.wake()
            assert [len(batch.changes) for batch in await watch.next()] == [0, 0]
        one.put(Row(3, "c"))
        assert not watch.pending()

    asyncio.run(scenario())


def test_next_waits_for_a_change() -> None:
    async def scenario() -> None:
        rows = table()
        reader = rows.changes()

        async def later() -> None:
            await asyncio.sleep(0)
            rows.put(Row(1, "a"))
            await asyncio.Event().wait()

        async with cancelling("later", later()):
            assert (await reader.next()).changes == (Change(1, None, Row(1, "a")),)

    asyncio.run(scenario())


operations = st.lists(
    st.one_of(
        st.builds(
            Row,
            st.integers(0, 4),
            st.sampled_from("ab"),
            st.lists(st.sampled_from("xyz"), max_size=3).map(tuple),
        ),
        st.integers(0, 4),
        st.sampled_from(["read one", "read two"]),
    ),
    max_size=40,
)


@given(operations)
@settings(max_examples=200, deadline=None)
def test_a_reader_that_applies_all_batches_has_the_table(operations: list[Any]) -> None:
    rows = table()
    readers = {"read one": rows.changes(), "read two": rows.changes()}
    copies: dict[str, dict[Any, Row]] = {name: {} for name in readers}

    def apply(name: str) -> None:
        for change in readers[name].take():
            assert copies[name].get(change.key) == change.old != change.new
            if change.new is None:
                del copies[name][change.key]
            else:
                copies[name][change.key] = change.new

    for operation in operations:
        if isinstance(operation, Row):
            rows.put(operation)
        elif isinstance(operation, int):
            rows.delete(operation)
        else:
            apply(operation)
    for name in readers:
        apply(name)
        assert copies[name] == {row.key: row for row in rows}
    for tag in "xyz":
        assert {row.key for row in rows.by("tag", tag)} == {row.key for row in rows if tag in row.tags}


def test_all_tables_are_declared_in_walk_order() -> None:
    tables = Tables()
    names = list(tables.names())
    assert names.index("policies") < names.index("endpoints") < names.index("identities")
    assert names.index("selections") < names.index("policy_peers") < names.index("frontends")
    assert [one.name for one in tables] == names
    assert all(tables.named(name).help for name in names)
