"""`podwire monitor`: events of a node as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient


@click.command()
@click.option("-n", "--number", type=click.IntRange(min=1), help="end after so many events")
@click.option("--drops", is_flag=True, help="only what was dropped")
@printing.format_option
@with_agent
def monitor(agent: AgentClient, number: int | None, drops: bool, output: str) -> None:
    """Events of a node as they come, until Ctrl-C. `-o json`: one JSON object a line."""
    seen = 0
    for event in agent.stream("/podwire/v1/monitor"):
        if drops and event.get("verdict") != "DROPPED":
            continue
        click.echo(json.dumps(event) if output == "json" else line_of(event))
        seen += 1
        if seen == number:
            return


def line_of(event: Mapping[str, Any]) -> str:
    """An event in one line: its own `text`, or its members."""
    text = event.get("text")
    if isinstance(text, str):
        return " ".join(printing.safe(line) for line in text.splitlines())
    return "  ".join(
        f"{name}={printing.cell(value)}" for name, value in event.items() if value not in ("", None, [])
    )
