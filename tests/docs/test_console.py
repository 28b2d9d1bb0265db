"""The reader and matcher of documented commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.console import CommandTimeout, Shell, commands, matches

DOCUMENT = """# A page
```console
$ echo one; \\
>   echo two
one
two
$ true
```
```sh
$ not this
```
"""


def test_commands_are_found_with_their_output_and_line() -> None:
    first, second = commands(DOCUMENT)
    assert (first.text, first.expected, first.line) == ("echo one; echo two", ("one", "two"), 3)
    assert (second.text, second.expected) == ("true", ())


def test_a_block_that_begins_with_output_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(commands("```console\noutput\n```\n"))


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        (("a  b",), "a     b\n"),
        (("took ... s",), "took 1.25 s\n"),
        (("first", "...", "last"), "first\nx\ny\nlast\n"),
        (("first", "...", "last"), "first\nlast\n"),
        (("a+b (c)",), "\x1b[32ma+b (c)\x1b[0m\n\n"),
    ],
)
def test_output_that_matches(expected: tuple[str, ...], output: str) -> None:
    assert matches(expected, output)


@pytest.mark.parametrize(
    ("expected", "output"),
    [(("a",), "a\nb\n"), (("a.b",), "axb\n"), (("took ... s",), "took 1 m\n"), (("ab",), "a b\n")],
)
def test_output_that_does_not(expected: tuple[str, ...], output: str) -> None:
    assert not matches(expected, output)


def test_one_shell_remembers(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {})
    try:
        assert shell.run("export A=b", timeout=10).code == 0
        assert shell.run("echo $A; ls /nowhere-at-all", timeout=10).code == 2
        assert shell.run("echo $A", timeout=10).output == "b\n"
        with pytest.raises(CommandTimeout):
            shell.run("read x < <(sleep 30)", timeout=0.2)
    finally:
        shell.close()
