"""`podwire explain`: why a flow was allowed or dropped."""

from __future__ import annotations

from typing import Any

import click

from podwire.base.errors import NotFound, Unreachable
from podwire.cli import output as printing
from podwire.cli.agents import siblings, with_agent
from podwire.client.agent import AgentClient
from podwire.client.http import part


@click.command()
@click.argument("uuid", metavar="FLOW_UUID")
@printing.format_option
@with_agent
def explain(agent: AgentClient, uuid: str, output: str) -> None:
    """Why a flow was allowed or dropped: the policy, its namespace and the rule in it.

    The UUID is what `podwire hubble observe -o json` shows. A flow is known to the agent of the
    node that saw it: in a sandbox all nodes are asked.
    """
    found = _found(agent, f"/podwire/v1/explain/{part(uuid)}")
    if output == "json":
        printing.as_json(found)
    else:
        click.echo("\n".join(_lines(found)))


def _found(agent: AgentClient, path: str) -> dict[str, Any]:
    """The answer of the first agent that knows the flow; NotFound as the first one said it."""
    missing: NotFound | None = None
    for one in (agent, *siblings(agent)):
        try:
            answer: dict[str, Any] = one.get(path)
            return answer
        except NotFound as error:
            missing = missing or error
        except Unreachable:
            if one is agent:
                raise
    assert missing is not None
    hint = "flows are kept for a while only, by the node that saw them: try --node"
    raise NotFound(str(missing), hint=missing.hint or hint) from missing


def _lines(found: dict[str, Any]) -> list[str]:
    text = found.get("text")
    if isinstance(text, str):
        return [printing.safe(line) for line in text.splitlines()]
    return [f"{name}: {printing.cell(value)}" for name, value in found.items()]
