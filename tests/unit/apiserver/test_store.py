"""The store: one revision for all, survival, and watches that give the state."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from podwire.apiserver.store import Change, Store, TooOld
from podwire.base.errors import StorageError

Object = dict[str, Any]


def thing(name: str, value: int = 0) -> Object:
    return {
        "kind": "T",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "n", "uid": name},
        "value": value,
    }


def test_what_is_written_survives(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.put("things", "n", "a", thing("a", 1))
    store.put("things", "n", "b", thing("b", 2))
    store.put("things", "n", "a", thing("a", 3))
    store.remove("things", "n", "b")
    store.close()
    again = Store(tmp_path / "db")
    assert again.revision == 4
    assert [one.object["value"] for one in again.list("things")] == [3]
    assert [change.kind for change in again.since("things", 0)] == ["ADDED", "ADDED", "MODIFIED", "DELETED"]
    assert again.put("others", "n", "c", thing("c")).revision == 5
    again.close()


def test_revisions_never_come_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", history=2)
    for _ in range(1200):
        store.put("things", "n", "a", thing("a"))
        store.remove("things", "n", "a")
    store.close()
    again = Store(tmp_path / "db")
    assert again.revision == 2400
    with pytest.raises(TooOld):
        again.since("things", 1)
    assert next(iter(again.since("things", 2399))).kind == "DELETED"
    again.close()


def test_a_forgotten_revision_is_too_old_for_its_resource_alone() -> None:
    store = Store(":memory:", history=10)
    store.put("quiet", "n", "q", thing("q"))
    for value in range(2000):
        store.put("loud", "n", "l", thing("l", value))
    with pytest.raises(TooOld):
        store.since("loud", 5)
    assert [change.revision for change in store.since("quiet", 0)] == [1]
    store.close()


def replay(state: dict[str, int], changes: list[Change]) -> dict[str, int]:
    for change in changes:
        name = change.stored.name
        if change.kind == "DELETED":
            assert name in state
            del state[name]
        else:
            assert (name in state) == (change.kind == "MODIFIED")
            state[name] = change.stored.object["value"]
    return state


def test_replaying_from_any_revision_gives_the_list() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    store = Store(":memory:")
    heard: list[Change] = []
    store.listeners.append(heard.append)
    states: list[dict[str, int]] = [{}]
    while store.revision < 300:
        name = f"t{chance.randrange(12)}"
        if chance.random() < 0.3:
            store.remove("things", "n", name)
        else:
            store.put("things", "n", name, thing(name, chance.randrange(1000)))
        if len(states) <= store.revision:
            states.append({one.name: one.object["value"] for one in store.list("things")})
    for revision, state in enumerate(states):
        assert replay(dict(state), list(store.since("things", revision))) == states[-1]
    assert [change.revision for change in heard] == list(range(1, 301))
    store.close()


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.put("things", "n", "a", thing("a", 1))
    store._file.execute("PRAGMA max_page_count = 1")  # the disk is full
    with pytest.raises(StorageError, match="full"):
        for number in range(200):
            store.put("things", "n", f"b{number}", {**thing("b"), "text": "x" * 10_000})
    found = store.get("things", "n", "a")
    assert found is not None and found.object["value"] == 1
    before = store.revision
    assert store.count("things") == before
    store.close()
    again = Store(tmp_path / "db")
    assert (again.revision, again.count("things")) == (before, before)
    again.close()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open"):
        Store(tmp_path / "no" / "db")


def test_a_file_that_is_no_database_or_holds_no_objects(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(random.randbytes(8192))
    with pytest.raises(StorageError, match="cannot open"):
        Store(tmp_path / "noise")
    store = Store(tmp_path / "torn")
    store.put("things", "n", "a", thing("a", 1))
    store._file.execute("UPDATE objects SET body = ?", (b'{"metadata": ',))
    store.close()
    with pytest.raises(StorageError, match="cannot open"):
        Store(tmp_path / "torn")


def test_the_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.put("things", "n", "a", thing("a", 1))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.close()
