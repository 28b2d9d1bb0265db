"""Reading logs: tails, times, limits, following."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.sandbox.runner import logs
from podwire.sandbox.runner.terminal import LINE_MAX, Input


def write(path: Path, count: int) -> None:
    lines = [f"2026-01-01T00:00:{number:02d}.000000000Z stdout F line {number}\n" for number in range(count)]
    path.write_text("".join(lines))


def read(path: Path, **wanted: object) -> list[str]:
    async def collect() -> list[str]:
        found = logs.lines(path, logs.Wanted(**wanted), lambda: False)  # type: ignore[arg-type]
        return [text.decode() async for _, text in found]

    return asyncio.run(collect())


@pytest.mark.parametrize("tail", [0, 1, 3, 10, 11])
def test_a_tail_is_the_last_lines(tmp_path: Path, tail: int) -> None:
    write(tmp_path / "log", 10)
    assert (
        read(tmp_path / "log", tail=tail)
        == [f"line {number}\n" for number in range(10)][10 - min(tail, 10) :]
    )


@given(lengths=st.lists(st.integers(0, 40), max_size=30), tail=st.integers(0, 35), piece=st.integers(1, 64))
def test_tails_of_any_log_read_in_any_pieces(lengths: list[int], tail: int, piece: int) -> None:
    import tempfile

    texts = [f"t stdout F {'x' * length}" for length in lengths]
    with tempfile.NamedTemporaryFile("w+") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "PIECE", piece)
        file.write("".join(text + "\n" for text in texts))
        file.flush()
        found = read(Path(file.name), tail=tail)
    assert found == ["x" * length + "\n" for length in (lengths[-tail:] if tail else [])]


def test_since_limit_and_timestamps(tmp_path: Path) -> None:
    write(tmp_path / "log", 5)
    begin = logs.since(None, "2026-01-01T00:00:03Z", 0)
    assert read(tmp_path / "log", since=begin) == ["line 3\n", "line 4\n"]
    assert read(tmp_path / "log", timestamps=True, tail=1) == ["2026-01-01T00:00:04.000000000Z line 4\n"]
    assert "".join(read(tmp_path / "log", limit=10)) == "line 0\nlin"


def test_partial_lines_are_joined(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("t stdout P half \nt stdout F whole\n")
    assert "".join(read(tmp_path / "log")) == "half whole\n"


def test_following_ends_with_the_container(tmp_path: Path) -> None:
    path = tmp_path / "log"
    over = asyncio.Event()

    async def follow() -> list[str]:
        found = []
        async for _, text in logs.lines(path, logs.Wanted(follow=True), lambda: not over.is_set()):
            found.append(text.decode())
            if len(found) == 1:
                with path.open("a") as file:
                    file.write("t stderr F two\n")
                over.set()
        return found

    path.write_text("t stdout F one\n")
    assert asyncio.run(follow()) == ["one\n", "two\n"]


def test_a_line_without_an_end_is_written_in_parts(tmp_path: Path) -> None:
    """What a terminal shows may never hold a newline: it is neither kept for ever nor lost."""

    async def main() -> None:
        terminal = Input(tty=True)
        child = subprocess.Popen(
            [sys.executable, "-c", "print('x' * 40000, end='')"],
            stdin=terminal.theirs,
            stdout=terminal.theirs,
            stderr=terminal.theirs,
        )
        terminal.started()
        async with asyncio.timeout(20):
            await terminal.keep_log(tmp_path / "log")
        assert child.wait(20) == 0
        assert len(terminal._line) <= LINE_MAX

    asyncio.run(main())
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert len(lines) >= 1 and all(b" stdout P x" in line for line in lines)
    assert 40000 - LINE_MAX <= sum(line.count(b"x") for line in lines) <= 40000
