"""`podwire identity`: numbers and the labels they stand for."""

from __future__ import annotations

from typing import Any

import click

from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient
from podwire.client.http import part

COLUMNS = ["ID", "LABELS"]


@click.group()
def identity() -> None:
    """Security identities."""


@identity.command(name="list")
@printing.format_option
@with_agent
def list_(agent: AgentClient, output: str) -> None:
    """All identities this node knows."""
    found = agent.get("/v1/identity")
    printing.show(output, found, COLUMNS, map(_row, found))


@identity.command()
@click.argument("number", metavar="ID")
@printing.format_option
@with_agent
def get(agent: AgentClient, number: str, output: str) -> None:
    """The labels of one identity."""
    found = agent.get(f"/v1/identity/{part(number)}")
    printing.show(output, [found], COLUMNS, [_row(found)])


def _row(shape: dict[str, Any]) -> list[Any]:
    return [shape["id"], list(shape["labels"])]
