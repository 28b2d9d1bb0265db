"""`podwire endpoint`: the pods of a node with their identities and policies."""

from __future__ import annotations

from typing import Any

import click

from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient
from podwire.client.http import part

COLUMNS = [
    "ENDPOINT",
    "POLICY (ingress)",
    "POLICY (egress)",
    "IDENTITY",
    "LABELS (source:key[=value])",
    "IPv6",
    "IPv4",
    "STATUS",
]


@click.group()
def endpoint() -> None:
    """Endpoints (pods) of a node."""


@endpoint.command(name="list")
@printing.format_option
@with_agent
def list_(agent: AgentClient, output: str) -> None:
    """All endpoints of a node."""
    found = agent.get("/v1/endpoint")
    printing.show(output, found, COLUMNS, map(_row, found))


@endpoint.command()
@click.argument("endpoint_id", metavar="ENDPOINT")
@printing.format_option
@with_agent
def get(agent: AgentClient, endpoint_id: str, output: str) -> None:
    """One endpoint: its number, or pod-name:NAMESPACE:POD, container-id:ID, ipv4:ADDRESS."""
    found = agent.get(f"/v1/endpoint/{part(endpoint_id)}")
    if output == "json":
        printing.as_json([found])
        return
    status = found["status"]
    networking = status["networking"]
    identity = status["identity"] or {}
    realized = status["policy"]["realized"]
    addresses = [value for pair in networking["addressing"] for value in pair.values() if value]
    rows = [
        ("Endpoint", found["id"]),
        ("Pod", status["external-identifiers"]["pod-name"]),
        ("Status", status["state"] + _denied(status)),
        ("Identity", identity.get("id", "")),
        ("Labels", list(identity.get("labels", ()))),
        ("Addresses", addresses),
        ("Interface", f"{networking['interface-name']} ({networking['interface-index']})"),
        ("MAC", networking["mac"]),
        ("Policy enforced", realized["policy-enabled"]),
        ("Policy revision", realized["policy-revision"]),
        ("May be reached by", realized["allowed-ingress-identities"]),
        ("May reach", realized["allowed-egress-identities"]),
    ]
    click.echo("\n".join(printing.lines(["", ""], rows)[1:]))


def _row(shape: dict[str, Any]) -> list[Any]:
    status = shape["status"]
    identity = status["identity"] or {}
    enforced = status["policy"]["realized"]["policy-enabled"]
    address = status["networking"]["addressing"][0]
    return [
        shape["id"],
        _enabled(enforced in ("ingress", "both")),
        _enabled(enforced in ("egress", "both")),
        identity.get("id", "<none>"),
        list(identity.get("labels", ())),
        address.get("ipv6", ""),
        address.get("ipv4", ""),
        status["state"] + _denied(status),
    ]


def _denied(status: dict[str, Any]) -> str:
    """A map of the node is full: whom the pod is denied for that."""
    unknown = status.get("denied-unknown", ())
    return f", denied unknown {' and '.join(unknown)}" if unknown else ""


def _enabled(enforcing: bool) -> str:
    return "Enabled" if enforcing else "Disabled"
