"""`podwire metrics`: what an agent counts."""

from __future__ import annotations

import re

import click

from podwire.base.errors import UsageError
from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient


@click.group()
def metrics() -> None:
    """Metrics of a node's agent."""


@metrics.command(name="list")
@click.option("-p", "--match-pattern", metavar="REGEX", help="only metrics whose name matches")
@printing.format_option
@with_agent
def list_(agent: AgentClient, match_pattern: str | None, output: str) -> None:
    """All metrics with their values."""
    try:
        pattern = re.compile(match_pattern or "")
    except re.error as error:
        raise UsageError(f"--match-pattern is no regular expression: {error}") from error
    found = [one for one in agent.get("/v1/metrics") if pattern.search(one["name"])]
    rows = [
        (
            one["name"],
            " ".join(f'{name}="{value}"' for name, value in one["labels"].items()),
            f"{one['value']:g}",
        )
        for one in found
    ]
    printing.show(output, found, ["METRIC", "LABELS", "VALUE"], rows)
