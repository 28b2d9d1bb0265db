"""`podwire service`: service addresses and what is behind them."""

from __future__ import annotations

from typing import Any

import click

from podwire.base.addresses import join
from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient

COLUMNS = ["ID", "Frontend", "Service Type", "Backend", "Service", "Not served yet"]


@click.group()
def service() -> None:
    """Services and their backends."""


@service.command(name="list")
@printing.format_option
@with_agent
def list_(agent: AgentClient, output: str) -> None:
    """All service addresses. What of a service nothing answers for yet is named beside it."""
    found = agent.get("/v1/service")
    printing.show(output, found, COLUMNS, map(_row, found))


def _row(shape: dict[str, Any]) -> list[Any]:
    spec = shape["spec"]
    frontend, flags = spec["frontend-address"], spec["flags"]
    return [
        spec["id"],
        f"{join(frontend['ip'], frontend['port'])}/{frontend['protocol']}",
        flags["type"],
        [
            f"{number} => {join(one['ip'], one['port'])}/{one['protocol']} ({one['state']})"
            for number, one in enumerate(spec["backend-addresses"], 1)
        ],
        f"{flags['namespace']}/{flags['name']}",
        list(shape["podwire"]["not-served"]),
    ]
