"""The commands in the documents do what the documents say: each is run, its output compared.

All commands of a document run in one shell, in order, at the top of the tree. A document marked
`<!-- sandbox -->` gets a sandbox of its own with the exports of `podwire sandbox env`; others bring
up their own and take it down again.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.console import Answer, Command, Shell, commands, matches

from podwire.testing import leaks, whose

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECONDS = 90  # for one command; `make demo` sets up first where it has to
MARK = "<!-- sandbox -->"
RUN = Path("/run/podwire/sandboxes")

DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("labs/**/*.md")]
    if "```console\n" in path.read_text()
)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def own(path: Path) -> Iterator[set[str]]:
    """Names of the sandboxes that the document brings up, which are ours while the test runs.

    They are what the document says, so another checkout's tests wait until this one is through.
    """
    names = {name for command in commands(path.read_text()) for name in _brought_up(command.text)}
    directory = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        running = {name for name in names if (RUN / name).exists()}
        assert not running, f"take down first what the document brings up itself: {', '.join(running)}"
        with whose.claimed(names), leaks.nothing_left():
            yield names
    finally:
        os.close(directory)


@pytest.fixture
def environment(path: Path) -> Iterator[dict[str, str]]:
    """Variables for the commands of the document that the test is about."""
    found = {"PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "200", "TERM": "dumb"}
    if MARK not in path.read_text():
        yield found
        return
    name = f"docs-{os.getpid()}"
    _podwire("sandbox", "up", "--name", name)
    try:
        exports = _podwire("sandbox", "env", "--name", name).splitlines()
        pairs = (
            line.removeprefix("export ").partition("=") for line in exports if line.startswith("export ")
        )
        yield found | {"PODWIRE_SANDBOX": name} | {key: value.strip("'\"") for key, _, value in pairs}
    finally:
        _podwire("sandbox", "down", "--name", name)


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_documented_commands(path: Path, own: set[str], environment: dict[str, str]) -> None:
    todo = list(commands(path.read_text()))
    shell = Shell(ROOT, environment)
    try:
        for command in todo:
            _check(path, command, shell.run(command.text, timeout=SECONDS))
    finally:
        shell.close()
        left = {name for name in own if (RUN / name).exists()}
        for name in left:
            _podwire("sandbox", "down", "--name", name)
    assert not left, f"the document leaves a sandbox running: {', '.join(left)}"


def _check(path: Path, command: Command, answer: Answer) -> None:
    said = f"{_name(path)}:{command.line}: $ {command.text}\n{answer.output}"
    if command.expected:
        assert matches(command.expected, answer.output), f"{said}\nexpected:\n" + "\n".join(command.expected)
    else:
        assert answer.code == 0, said


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_documented_commands_can_be_read(path: Path) -> None:
    found: list[Command] = list(commands(path.read_text()))
    assert found, "a console block without a command"


def _podwire(*words: str) -> str:
    return subprocess.run(
        [str(BIN / "podwire"), *words], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def _brought_up(command: str) -> list[str]:
    """Names of the sandboxes a command makes."""
    found = []
    for words in re.findall(r"podwire sandbox up\b([^;&|\n]*)", command):
        named = re.search(r"--name[ =](\S+)", words)
        lab = re.search(r"(?:-f|--file)[ =](\S+)", words)
        file = ROOT / lab[1] if lab else None
        if file is not None and file.is_dir():
            file /= "lab.yaml"
        text = file.read_text() if file is not None else ""
        of_lab = re.search(r"^name:\s*(\S+)", text, re.M)
        found.append(named[1] if named else of_lab[1] if of_lab else "default")
    return found
