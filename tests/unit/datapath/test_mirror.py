"""A mirror against a map in memory: difference, sharing, failures, pruning."""

from __future__ import annotations

import asyncio
import random

from tests.unit.datapath.kernel import MemoryMap, refused

from podwire.datapath import flush as flush_map
from podwire.datapath.flush import Grow
from podwire.datapath.mirror import Mirror, Target


def write(mirror: Mirror, grow: Grow | None = None) -> bool:
    return asyncio.run(flush_map.write(mirror, grow, mirror.work()))


def remove(mirror: Mirror) -> bool:
    keys = mirror.leaving()
    asyncio.run(flush_map.remove(mirror, keys))
    return bool(keys) and not mirror.refused


def flush(mirror: Mirror) -> None:
    write(mirror)
    remove(mirror)


def test_only_differences_are_written() -> None:
    table = MemoryMap("table", 10, {b"a": b"1", b"b": b"1"})
    mirror = Mirror("table", table)
    mirror.load()
    mirror.want("row", {b"a": b"1", b"b": b"2", b"c": b"3"})
    assert write(mirror)
    assert table.writes == 2
    mirror.want("row", {b"a": b"1", b"b": b"2", b"c": b"3"})
    assert not write(mirror)
    mirror.want("row", {b"a": b"1"})
    assert remove(mirror)
    assert table.content == {b"a": b"1"}
    assert not remove(mirror)


def test_what_several_rows_want_goes_with_the_last() -> None:
    table = MemoryMap("table", 10)
    mirror = Mirror("table", table)
    for row, value in (("one", b"1"), ("two", b"2"), ("three", b"3")):
        mirror.want(row, {b"k": value})
    flush(mirror)
    assert table.content == {b"k": b"3"}
    mirror.want("three", {})
    flush(mirror)
    assert table.content == {b"k": b"2"}
    mirror.want("one", {})
    flush(mirror)
    assert table.content == {b"k": b"2"}
    mirror.want("two", {})
    flush(mirror)
    assert table.content == {}


def test_an_entry_that_moves_between_rows_is_never_removed() -> None:
    table = MemoryMap("table", 10)
    mirror = Mirror("table", table)
    mirror.want("old", {b"k": b"1"})
    flush(mirror)
    mirror.want("old", {})
    mirror.want("new", {b"k": b"2"})
    write(mirror)
    assert not remove(mirror)
    assert table.content == {b"k": b"2"}


def test_a_full_map_names_the_rows_and_tries_again() -> None:
    table = MemoryMap("table", 2)
    mirror = Mirror("table", table)
    for number in range(4):
        mirror.want(f"row{number}", {bytes([number]): b"1"})
    write(mirror)
    assert set(mirror.failed_rows()) == {"row2", "row3"}
    # What is there can still be changed.
    mirror.want("row0", {b"\0": b"2"})
    write(mirror)
    assert table.content[b"\0"] == b"2"
    assert set(mirror.failed_rows()) == {"row2", "row3"}
    mirror.want("row1", {})
    remove(mirror)
    write(mirror)
    assert set(mirror.failed_rows()) == {"row3"}
    mirror.want("row3", {})
    flush(mirror)
    assert mirror.failed_rows() == {}
    assert mirror.held == table.content


def test_a_bigger_map_takes_the_place_of_a_full_one() -> None:
    table = MemoryMap("table", 2)

    def grow(name: str, entries: int) -> Target:
        nonlocal table
        table = MemoryMap("table", entries, table.content)
        return table

    mirror = Mirror("table", table)
    for number in range(8):
        mirror.want(number, {bytes([number]): b"1"})
    write(mirror, grow)
    assert mirror.failed_rows() == {}
    assert len(table.content) == 8


def test_a_removal_that_is_refused_half_way_is_tried_again() -> None:
    """What is wanted again meanwhile is written: nobody knows which entries went."""
    table = MemoryMap("table", 10)
    mirror = Mirror("table", table)
    for key in (b"a", b"b", b"c"):
        mirror.want(key, {key: b"1"})
    flush(mirror)
    for key in (b"a", b"b"):
        mirror.want(key, {})
    table.refuse = lambda step, key: refused("delete")(step, key) if key == max(b"a", b"b") else None
    assert not remove(mirror) and mirror.refused and mirror.unfinished
    table.refuse = refused("")
    mirror.want("again", {b"a": b"1", b"b": b"1"})
    flush(mirror)
    assert set(table.content) == {b"a", b"b", b"c"} == set(mirror.held)
    mirror.want("again", {})
    flush(mirror)
    assert set(table.content) == {b"c"} and not mirror.unfinished


def test_what_was_left_stays_until_it_is_given_up() -> None:
    table = MemoryMap("table", 10, {b"left": b"1", b"kept": b"1"})
    mirror = Mirror("table", table)
    mirror.load()
    mirror.want("row", {b"kept": b"1"})
    flush(mirror)
    assert set(table.content) == {b"left", b"kept"}
    assert not mirror.prune(), "nothing is kept back"
    flush(mirror)
    assert set(table.content) == {b"kept"}


def test_any_sequence_ends_equal() -> None:
    """Random rows that share keys and values, against a plain recomputation."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    table = MemoryMap("table", 1000)
    mirror = Mirror("table", table)
    wanted: dict[int, dict[bytes, bytes]] = {}
    for _ in range(2000):
        row = dice.randrange(12)
        entries = {bytes([dice.randrange(8)]): bytes([dice.randrange(3)]) for _ in range(dice.randrange(4))}
        wanted.pop(row, None)
        if entries:
            wanted[row] = entries
        mirror.want(row, entries)
        if dice.random() < 0.4:
            flush(mirror)
    flush(mirror)
    keys = {key for entries in wanted.values() for key in entries}
    assert set(table.content) == keys
    for key in keys:
        assert table.content[key] in {entries[key] for entries in wanted.values() if key in entries}


def test_a_row_that_yields_has_an_entry_only_while_no_other_wants_it() -> None:
    """In whatever order they come and go: the node's own address under a pod's."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    table = MemoryMap("table", 10)
    mirror = Mirror("table", table)
    values = {"pod": b"pod", "node": b"node", "local": b"node"}
    wanted: set[str] = set()
    for _ in range(500):
        row = dice.choice(sorted(values))
        wanted ^= {row}
        mirror.want(row, {b"a": values[row]} if row in wanted else {}, yields=row != "pod")
        if dice.random() < 0.5:
            flush(mirror)
            expected = b"pod" if "pod" in wanted else b"node" if wanted else None
            assert table.content.get(b"a") == expected, wanted
