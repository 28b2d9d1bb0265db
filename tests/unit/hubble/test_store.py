"""The ring of columns: what is kept, in which order, and how it wraps."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.hubble.read import Loss
from podwire.hubble.store import Store


def fill(store: Store, count: int) -> None:
    """Rows whose sequence is their number."""
    numbers = store.end + np.arange(count)
    for part, columns in store.room(count):
        columns["sequence"][:] = numbers[part]
        store.commit(part.stop - part.start)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=12), st.booleans())
def test_the_newest_rows_are_there_in_both_orders(batches: list[int], newest_first: bool) -> None:
    store = Store(64)
    for count in batches:
        fill(store, count)
    total = sum(batches)
    assert (store.first, store.end, len(store)) == (max(0, total - 64), total, min(64, total))
    pieces = []
    for start, columns in store.chunks(store.first, store.end, newest_first=newest_first):
        assert columns["sequence"].tolist() == list(range(start, start + len(columns["sequence"])))
        pieces.append(columns["sequence"].tolist())
    if newest_first:
        pieces.reverse()
    assert [row for piece in pieces for row in piece] == list(range(store.first, store.end))


def test_rows_by_number() -> None:
    store = Store(16)
    fill(store, 16)
    fill(store, 5)
    assert [row["sequence"] for row in store.rows(np.array([5, 20, 16]))] == [5, 20, 16]


def test_a_store_is_as_big_as_it_was_told() -> None:
    store = Store(1000)
    assert sum(column.nbytes for column in store._columns.values()) == 1000 * 169


def test_waiting_ends_with_a_row_or_a_loss() -> None:
    async def main() -> None:
        store = Store(16)
        async with asyncio.timeout(5):
            await asyncio.gather(store.wait(0), _after(lambda: fill(store, 1)))
            await store.wait(0)
            await asyncio.gather(store.wait(1), _after(lambda: store.add_loss(Loss(3, 0), 1)))
        assert store.lost == 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await store.wait(1)

    asyncio.run(main())


async def _after(work) -> None:
    await asyncio.sleep(0)
    work()
