"""`podwire policy`: policies in force, and what their selectors select."""

from __future__ import annotations

import json
from typing import Any

import click

from podwire.base.errors import NotFound
from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient

COLUMNS = ["POLICY", "KIND", "SUBJECT", "CLAUSE", "EFFECT", "PEERS", "PORTS", "STATUS"]


@click.group()
def policy() -> None:
    """Policies in force and their selectors."""


@policy.command()
@click.argument("name", required=False, metavar="[[NAMESPACE/]NAME]")
@printing.format_option
@with_agent
def get(agent: AgentClient, name: str | None, output: str) -> None:
    """Policies, clause by clause; one that is not in force says why."""
    answer = agent.get("/v1/policy")
    found = [one for one in json.loads(answer["policy"]) if name is None or name in (_name(one), one["name"])]
    if name is not None and not found:
        raise NotFound(f"there is no policy {name}", hint="`podwire policy get` shows all of them")
    value = {"revision": answer["revision"], "policy": found}
    printing.show(output, value, COLUMNS, [row for one in found for row in _rows(one)])
    if output == "table":
        click.echo(f"Revision: {answer['revision']}")


@policy.command()
@printing.format_option
@with_agent
def selectors(agent: AgentClient, output: str) -> None:
    """Selectors that rules use, and the identities they select now."""
    found = agent.get("/v1/policy/selectors")
    rows = [(one["selector"], one["users"], list(one["identities"])) for one in found]
    printing.show(output, found, ["SELECTOR", "USERS", "IDENTITIES"], rows)


def _name(one: dict[str, Any]) -> str:
    return f"{one['namespace']}/{one['name']}" if one["namespace"] else str(one["name"])


def _rows(one: dict[str, Any]) -> list[list[Any]]:
    """One row per clause, one for a policy without clauses."""
    head = [_name(one), one["kind"]]
    status = one["error"] or "in force"
    rows = [
        [
            *head,
            rule["subject"],
            clause["path"],
            clause["effect"],
            _any(clause["peers"]),
            _any(clause["ports"]),
            status,
        ]
        for rule in one["rules"]
        for clause in rule["clauses"]
    ]
    subjects = list(dict.fromkeys(rule["subject"] for rule in one["rules"]))
    return rows or [[*head, subjects, "", "", "", "", status]]


def _any(values: list[str] | None) -> list[str]:
    return ["any"] if values is None else values or ["none"]
