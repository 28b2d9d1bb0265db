"""`podwire tables`: the agent's tables, in walk order."""

from __future__ import annotations

import itertools
import json
from typing import Any

import click

from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient
from podwire.client.http import part


@click.command()
@click.argument("name", required=False, metavar="[TABLE]")
@printing.format_option
@with_agent
def tables(agent: AgentClient, name: str | None, output: str) -> None:
    """All tables of an agent in walk order, or the rows of one."""
    if name is None:
        found = agent.get("/podwire/v1/tables")
        rows = [(one["name"], one["rows"], one["ready"], one["revision"], one["help"]) for one in found]
        printing.show(output, found, ["TABLE", "ROWS", "READY", "REVISION", "WHAT"], rows)
        return
    found = agent.rows(f"/podwire/v1/tables/{part(name)}")
    first = next(found, None)
    # All rows of a table are of one kind; one that is empty has no columns.
    columns = list(json.loads(first)) if first is not None else []
    items = found if first is None else itertools.chain([first], found)
    printing.show_items(output, items, [key.upper() for key in columns], lambda row: _cells(row, columns))


def _cells(row: dict[str, Any], columns: list[str]) -> list[str]:
    return [printing.cell(row.get(key)) for key in columns]
