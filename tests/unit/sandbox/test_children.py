"""Claims: a name is one process's, as long as that lives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwire.base.errors import Conflict
from podwire.sandbox import children
from podwire.sandbox.places import Places


class Here(Places, frozen=True):
    """A sandbox's places below a directory of the test's."""

    below: Path = Path()

    @property
    def directory(self) -> Path:
        return self.below


def claim_in_a_fork(places: Places, name: str) -> int:
    """The pid of a process that has claimed `name`, and waits for the end of its standard input's pipe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            children.claim(places, name)
            os.write(writer, b"1")
            os.close(reader)
            os.kill(os.getpid(), 19)
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    return pid


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    places = Here("unit", tmp_path, tmp_path)
    assert children.claimed(places, "agent n1") is None
    pid = claim_in_a_fork(places, "agent n1")
    try:
        found = children.claimed(places, "agent n1")
        assert found is not None and found.pid == pid
        with pytest.raises(Conflict, match="agent n1 of sandbox “unit” runs already"):
            children.claim(places, "agent n1")
        assert children.claimed(places, "agent n2") is None
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert children.claimed(places, "agent n1") is None
    fd = children.claim(places, "agent n1")
    assert children.claimed(places, "agent n1") is None  # oneself: nobody else
    os.close(fd)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x", "started": 1}'])
def test_a_claim_that_says_nothing_is_nobodys(tmp_path: Path, content: bytes) -> None:
    places = Here("unit", tmp_path, tmp_path)
    places.claim("relay").parent.mkdir()
    places.claim("relay").write_bytes(content)
    assert children.claimed(places, "relay") is None


def test_how_a_child_ended_is_known_only_to_who_started_it() -> None:
    child = children.Child("x", lambda: None)
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    assert child.open(pid)
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    assert child.ended() == "with exit code 3"
    assert (child.pid, child.pidfd) == (0, -1)
    assert not child.open(pid)
