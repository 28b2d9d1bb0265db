"""`podwire explain`: why a flow was allowed or dropped."""

from __future__ import annotations

from typing import Any

import click

from podwire.base.errors import NotFound
from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient
from podwire.client.http import part


@click.command()
@click.argument("uuid", metavar="FLOW_UUID")
@printing.format_option
@with_agent
def explain(agent: AgentClient, uuid: str, output: str) -> None:
    """Why a flow was allowed or dropped: the policy, its namespace and the rule in it.

    The UUID is what `podwire hubble observe -o json` shows. A flow is known to the agent of the
    node that saw it.
    """
    try:
        found = agent.get(f"/podwire/v1/explain/{part(uuid)}")
    except NotFound as error:
        hint = "flows are kept for a while only, by the node that saw them: try --node"
        raise NotFound(str(error), hint=error.hint or hint) from error
    if output == "json":
        printing.as_json(found)
    else:
        click.echo("\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    text = found.get("text")
    if isinstance(text, str):
        return [printing.safe(line) for line in text.splitlines()]
    return [f"{name}: {printing.cell(value)}" for name, value in found.items()]
