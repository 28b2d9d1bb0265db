"""`podwire explain`: why a flow was allowed or dropped."""

from __future__ import annotations

import re
from typing import Any

import click

from podwire.base.errors import NotFound, Unreachable, UsageError
from podwire.cli import output as printing
from podwire.cli.agents import siblings, with_agent
from podwire.client.agent import AgentClient
from podwire.client.http import part

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@click.command()
@click.argument("uuid", metavar="FLOW_UUID")
@printing.format_option
@with_agent
def explain(agent: AgentClient, uuid: str, output: str) -> None:
    """Why a flow was allowed or dropped: the policy, its namespace and the rule in it.

    The UUID is what `podwire hubble observe -o json` shows. A flow is known to the agent of the
    node that saw it: in a sandbox all nodes are asked.
    """
    if not UUID.fullmatch(uuid):
        raise UsageError(
            f"{uuid[:60]!r} is no UUID of a flow", hint="`podwire hubble observe -o json` shows them"
        )
    found = _found(agent, uuid, f"/podwire/v1/explain/{part(uuid)}")
    if output == "json":
        printing.as_json(found)
    else:
        click.echo("\n".join(_lines(found)))


def _found(agent: AgentClient, uuid: str, path: str) -> dict[str, Any]:
    """The answer of the first agent that knows the flow; NotFound says who was asked."""
    missing: NotFound | None = None
    asked, silent = [], []
    for one in (agent, *siblings(agent)):
        try:
            answer: dict[str, Any] = one.get(path)
            return answer
        except NotFound as error:
            missing = missing or error
            asked.append(one.node)
        except Unreachable:
            if one is agent:
                raise
            silent.append(one.node)
    assert missing is not None
    if not agent.node:  # an agent outside a sandbox: it alone was asked, and names itself
        raise missing
    names = f"node {asked[0]}" if len(asked) == 1 else f"any of the nodes {', '.join(asked)}"
    away = f"; no answer from {', '.join(silent)}, which may have it" if silent else ""
    raise NotFound(
        f"no flow {uuid} is stored on {names}", hint=f"old flows are overwritten{away}"
    ) from missing


def _lines(found: dict[str, Any]) -> list[str]:
    text = found.get("text")
    if isinstance(text, str):
        return [printing.safe(line) for line in text.splitlines()]
    return [f"{name}: {printing.cell(value)}" for name, value in found.items()]
