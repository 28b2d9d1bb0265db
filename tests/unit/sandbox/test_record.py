"""The record: what is noted before it is made is what is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwire.base.errors import StorageError
from podwire.sandbox.record import Entry, Record, remove_all


def test_entries_are_what_was_noted_and_not_taken_back(tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    assert record.entries() == []
    one, two = tmp_path / "one", tmp_path / "two"
    assert record.will_make("directory", one) == one
    record.will_make("directory", two)
    record.will_make("directory", one)
    record.removed("directory", two)
    assert record.entries() == [Entry("directory", str(one))]


def test_a_line_torn_by_a_crash_is_ignored(tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    record.will_make("directory", tmp_path / "one")
    with record.path.open("ab") as file:
        file.write(b'{"kind":"directory","pa')
    assert [entry.path for entry in record.entries()] == [str(tmp_path / "one")]


def test_what_was_recorded_is_removed_made_or_not(tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    made = record.will_make("directory", tmp_path / "made")
    made.mkdir()
    (made / "file").write_text("x")
    record.will_make("directory", tmp_path / "never-made")
    assert remove_all(record) == []
    assert not made.exists()


def test_one_failure_does_not_keep_the_rest(tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    made = record.will_make("directory", tmp_path / "made")
    made.mkdir()
    odd = record.will_make("directory", tmp_path / "odd")
    odd.write_text("a file where a directory was recorded")
    assert len(remove_all(record)) == 1
    assert not made.exists()


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the sandbox's record"):
        Record(tmp_path / "no" / "directory").will_make("netns", Path("/run/netns/x"))


def test_the_record_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that ends in the middle leaves the record that the next one needs."""
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    record = Record(sandbox / "record")
    record.will_make("directory", sandbox)
    (sandbox / "logs").mkdir()

    def killed(path: Path) -> None:
        raise OSError(f"killed at {path}")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        assert remove_all(record)
    assert record.entries()
    assert remove_all(record) == []
    assert not sandbox.exists()
