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
    """A flow in one line: when, who, what became of it, why."""
    layer = event.get("l4") or {}
    protocol, ports = next(iter(layer.items()), ("", {}))
    parts = [
        str(event.get("time", "")),
        f"{_who(event, 'source', ports)} -> {_who(event, 'destination', ports)}",
        protocol,
        str(event.get("verdict", "")),
        str(event.get("drop_reason_desc") or ""),
        str(event.get("trace_observation_point") or ""),
        str(event.get("Summary") or event.get("summary") or ""),
    ]
    return printing.safe("  ".join(part for part in parts if part))


def _who(event: Mapping[str, Any], side: str, ports: Mapping[str, Any]) -> str:
    """``namespace/pod:port``, or the address where there is no pod."""
    party = event.get(side) or {}
    pod = party.get("pod_name")
    name = f"{party.get('namespace', '')}/{pod}" if pod else str((event.get("IP") or {}).get(side, ""))
    port = ports.get(f"{side}_port")
    return f"{name}:{port}" if port else name
