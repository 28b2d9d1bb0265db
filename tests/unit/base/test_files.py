"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwire.base.files import replace_whole


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(
    tmp_path: Path, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    path = tmp_path / "state.json"
    for content in (b"first", b"", b"second" * 10000):
        replace_whole(path, content, durable=durable)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    assert len(synced) == (3 if durable else 0)


def test_the_mode_is_the_one_asked_for_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    (tmp_path / "ca.key.tmp").write_bytes(b"left by a crash")
    (tmp_path / "ca.key.tmp").chmod(0o666)
    replace_whole(path, b"secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_of_one_stem_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "ca.tmp").write_bytes(b"somebody's")
    replace_whole(tmp_path / "ca.key", b"key")
    assert (tmp_path / "ca.tmp").read_bytes() == b"somebody's"


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    (path / "inside").write_bytes(b"old")
    with pytest.raises(OSError):
        replace_whole(path, b"new")
    assert (path / "inside").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
