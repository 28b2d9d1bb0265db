"""Commands in documents and what they must print.

A block marked `console` holds commands (lines that begin with `$ `, continued after a backslash)
and the expected output of each. In the output `...` stands for anything within a line, a line
`...` for any number of lines, and runs of spaces for runs of spaces; nothing else is a pattern.
A command without expected output only has to succeed.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    text: str
    expected: tuple[str, ...]
    line: int  # in its document


@dataclass(frozen=True)
class Answer:
    output: str
    code: int


class CommandTimeout(Exception):
    """A documented command did not come back; says what it had printed by then."""


def commands(document: str) -> Iterator[Command]:
    """The commands of a document in order; blocks inside quotes or lists count too."""
    for block in re.finditer(r"^([ >]*)```console\n(.*?)^\1```", document, flags=re.S | re.M):
        first = document[: block.start(2)].count("\n") + 1
        lines = [line.removeprefix(block[1]) for line in block[2].splitlines()]
        yield from _of_block(lines, first)


def _of_block(lines: list[str], first: int) -> Iterator[Command]:
    at = 0
    while at < len(lines):
        if not lines[at].startswith("$ "):
            raise ValueError(f"line {first + at}: a console block begins with `$ `, not with {lines[at]!r}")
        begin = at
        text = lines[at][2:]
        while text.endswith("\\"):
            at += 1
            text = text[:-1] + lines[at].removeprefix("> ").strip()
        at += 1
        expected = []
        while at < len(lines) and not lines[at].startswith("$ "):
            expected.append(lines[at])
            at += 1
        yield Command(text, tuple(expected), first + begin)


def pattern(expected: tuple[str, ...]) -> re.Pattern[str]:
    """What the whole output must look like."""
    parts = []
    for line in expected:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            words = [
                ".*?".join(re.escape(piece) for piece in word.split("..."))
                for word in line.rstrip().split(" ")
            ]
            parts.append(re.sub(r"(?: )+", r"[ \\t]+", " ".join(words)) + r"[ \t]*\n")
    return re.compile("".join(parts))


def matches(expected: tuple[str, ...], output: str) -> bool:
    # Colours are for terminals and empty lines at the end for nobody.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output).rstrip("\n")
    return pattern(tuple("\n".join(expected).rstrip("\n").split("\n"))).fullmatch(plain + "\n") is not None


class Shell:
    """One bash for all commands of a document, so that `eval` and `cd` last."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str, *, timeout: float) -> Answer:
        """Output (both streams) and exit code; standard input is empty for the command."""
        assert self._process.stdin is not None and self._process.stdout is not None
        mark = f"end-{uuid.uuid4().hex}"
        self._process.stdin.write(f"{{ {command}\n}} </dev/null\necho {mark} $?\n".encode())
        self._process.stdin.flush()
        heard, deadline = b"", time.monotonic() + timeout
        while (found := re.search(rf"{mark} (\d+)\n".encode(), heard)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise CommandTimeout(
                    f"not done after {timeout:.0f} s; printed: {heard.decode(errors='replace')}"
                )
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise CommandTimeout(f"the shell ended; printed: {heard.decode(errors='replace')}")
            heard += piece
        return Answer(heard[: found.start()].decode(errors="replace"), int(found[1]))

    def close(self) -> None:
        # The session is ours: what a command started and left running ends with it.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
