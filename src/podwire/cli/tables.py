"""`podwire tables`: the agent's tables, in walk order."""

from __future__ import annotations

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
    found = agent.get(f"/podwire/v1/tables/{part(name)}")
    columns = list(dict.fromkeys(key for row in found for key in row))
    printing.show(output, found, [key.upper() for key in columns], [_cells(row, columns) for row in found])


def _cells(row: dict[str, Any], columns: list[str]) -> list[str]:
    return [printing.cell(row.get(key)) for key in columns]
