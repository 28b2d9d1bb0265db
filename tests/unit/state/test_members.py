"""Tables of sets: readers are told who moved, coalesced by member, and ask the table what is."""

from __future__ import annotations

import os
import random

from podwire.model.rule import Direction
from podwire.model.selector import Selector, equals
from podwire.state.members import Moved
from podwire.state.peers import Classes, PeerRow, Peers
from podwire.state.selections import SelectionRow, Selections
from podwire.state.table import Changes

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
WEB, DB, JOB = (Selector((equals("k8s", "app", name),)) for name in ("web", "db", "job"))


def moved(reader: Changes[SelectionRow]) -> dict[object, object]:
    found = {}
    for change in reader.take():
        assert isinstance(change, Moved)
        found[change.key] = change.members
    return found


def test_a_reader_is_told_all_sets_first_and_then_who_moved() -> None:
    table = Selections("selections", help="")
    table.begin(WEB, {1, 2}, 1)
    reader = table.changes()
    assert moved(reader) == {WEB: None}
    assert not reader.pending()
    table.move(3, [WEB], [])
    table.move(1, [], [WEB])
    assert moved(reader) == {WEB: {1, 3}}
    assert table.members(WEB) == {2, 3}
    table.move(3, [WEB], [])  # it is there
    assert not reader.pending()


def test_one_that_comes_and_goes_is_told_once_and_asked_for() -> None:
    table = Selections("selections", help="")
    table.begin(WEB, set(), 1)
    reader = table.changes()
    reader.forget()
    table.move(7, [WEB], [])
    table.move(7, [], [WEB])
    assert moved(reader) == {WEB: {7}} and not table.members(WEB)
    table.move(8, [WEB], [])
    table.end(WEB)
    assert moved(reader) == {WEB: None} and WEB not in table and not table.members(WEB)


def test_rows_are_what_the_sets_are_and_do_not_follow() -> None:
    table = Selections("selections", help="")
    row = SelectionRow(DB, frozenset({5}), 2)
    assert table.put(row) and not table.put(row)
    assert table.get(DB) == row and set(table) == {row} and table.keys() == [DB]
    before = table.revision
    table.use(DB, 2)
    assert table.revision == before
    table.use(DB, 3)
    table.move(6, [DB], [])
    assert table.revision > before and row.identities == {5}
    assert table.get(DB) == SelectionRow(DB, frozenset({5, 6}), 3)
    assert table.delete(DB) is not None and table.delete(DB) is None and not len(table)


def test_a_reader_that_left_is_told_nothing() -> None:
    table = Selections("selections", help="")
    table.begin(WEB, set(), 1)
    reader = table.changes()
    reader.forget()
    reader.close()
    table.move(1, [WEB], [])
    assert not reader.pending()


def test_peers_are_a_table_of_rows() -> None:
    print(f"PODWIRE_SEED={SEED}")
    chance = random.Random(SEED)
    table, known = Peers("policy_peers", help=""), dict[tuple[int, Direction, int], PeerRow]()
    reader = table.changes()
    followed: dict[tuple[int, Direction, int], int] = {}
    for _ in range(3000):
        policy, direction = chance.randint(1, 3), chance.choice(list(Direction))
        row = PeerRow(policy, direction, chance.randrange(12), chance.randint(1, 3))
        key = (policy, direction, row.identity)
        choice = chance.random()
        if choice < 0.5:
            assert table.put(row) == (known.get(key) != row)
            known[key] = row
        elif choice < 0.85:
            assert table.delete(key) == known.pop(key, None)
        else:
            known = {one: row for one, row in known.items() if one[:2] != (policy, direction)}
            if choice < 0.93:
                table.end(policy, direction)
            else:
                named = {one: chance.randint(1, 3) for one in chance.sample(range(12), 3)}
                table.begin(policy, direction, Classes(named))
                known |= {(*key[:2], one): PeerRow(*key[:2], one, made) for one, made in named.items()}
        assert (len(table), table.get(key), key in table) == (len(known), known.get(key), key in known)
        if chance.random() < 0.2:
            follow(table, reader, followed)
            assert followed == {key: row.peer_class for key, row in known.items()}
            assert set(table) == set(known.values()) and set(table.keys()) == known.keys()


def follow(table: Peers, reader: Changes[PeerRow], followed: dict[tuple[int, Direction, int], int]) -> None:
    """What a reader knows who looks only at what moved."""
    for change in reader.take():
        assert isinstance(change, Moved) and isinstance(change.key, tuple)
        policy, direction = change.key
        now = table.of(policy, direction)
        known = {key[2] for key in followed if key[:2] == change.key}
        for identity in change.members if change.members is not None else {*now, *known}:
            followed.pop((policy, direction, identity), None)
            if peer_class := now.get(identity):
                followed[policy, direction, identity] = peer_class
