"""docs/reference/cli.md and socket.md list every command, option and path, each with what it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from podwire.agent.server import all_routes
from podwire.cli import COMMANDS, cli

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, f"{path} {name} has no command"
            yield from commands(f"{path} {name}", found)
    else:
        yield path, command


ALL = dict(commands("podwire", cli))


def test_every_command_of_the_list_is_there() -> None:
    assert {path.split()[1] for path in ALL} == set(COMMANDS)


@pytest.mark.parametrize("path", ALL)
def test_a_command_is_documented(path: str) -> None:
    command = ALL[path]
    page = (REFERENCE / "cli.md").read_text()
    assert command.help, f"{path} says nothing of itself"
    _, heading, after = page.partition(f"\n## {path}\n")
    assert heading, f"{path} is not in cli.md: run make gen"
    section = after.partition("\n## ")[0]
    for one in command.params:
        if isinstance(one, click.Option) and not one.hidden:
            assert one.help, f"{path} {one.opts[0]} says nothing of itself"
            assert one.opts[-1] in section, f"{path} {one.opts[-1]} is not in cli.md: run make gen"


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in all_routes()])
def test_a_path_is_documented(method: str, path: str) -> None:
    rows = [line.split(" | ") for line in (REFERENCE / "socket.md").read_text().splitlines()]
    found = [row for row in rows if row[:2] == [f"| {method}", f"`{path}`"]]
    assert len(found) == 1 and found[0][2].strip(" |"), f"{method} {path} says nothing of itself"
