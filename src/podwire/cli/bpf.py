"""`podwire bpf`: what the kernel's maps hold, read from the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from podwire.base.errors import UsageError
from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.client.agent import AgentClient

Row = Mapping[str, Any]

# heading → member of a row (agent.dumps)
LB = {
    "SERVICE ADDRESS": "frontend",
    "BACKEND ADDRESS": "backend",
    "BACKEND": "id",
    "STATE": "state",
    "REVNAT": "rev_nat",
    "SLOT": "slot",
    "SERVICE": "service",
}
CT = {
    "ENDPOINT": "endpoint",
    "DIRECTION": "direction",
    "PROTO": "protocol",
    "LOCAL": "local",
    "REMOTE": "remote",
    "FLAGS": "flags",
    "EXPIRES": "expires",
    "SENT": "bytes_sent",
    "RECEIVED": "bytes_received",
    "SERVICE": "service",
    "BECAUSE": "because",
}
POLICY = {
    "POLICY": "policy",
    "ENDPOINTS": "endpoints",
    "DIRECTION": "direction",
    "PEERS": "peers",
    "PORT/PROTO": "port",
    "VERDICT": "verdict",
    "PROXY PORT": "proxy_port",
    "BECAUSE": "because",
}
IPCACHE = {
    "IP PREFIX/ADDRESS": "prefix",
    "IDENTITY": "identity",
    "NAME": "name",
    "POD": "pod",
    "TUNNEL": "tunnel",
}


@click.group()
def bpf() -> None:
    """What the kernel's maps hold."""


def _list(name: str, columns: Mapping[str, str], help: str) -> None:
    """``podwire bpf NAME list``"""

    @bpf.group(name=name, help=help)
    def group() -> None: ...

    @group.command(name="list", help=help)
    @printing.format_option
    @with_agent
    def list_(agent: AgentClient, output: str) -> None:
        rows = agent.get(f"/podwire/v1/bpf/{name}")
        printing.show(output, rows, list(columns), map(_columns(columns), rows))


def _columns(columns: Mapping[str, str]) -> Callable[[Row], list[Any]]:
    def cells(row: Row) -> list[Any]:
        return [_one_line(row.get(member)) for member in columns.values()]

    return cells


def _one_line(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_list("lb", LB, "Service addresses and their backends.")
_list("ipcache", IPCACHE, "Who is behind an address.")


@bpf.group()
def ct() -> None:
    """Connections."""


@ct.command(name="list")
@click.argument("scope", default="global", metavar="[global|ENDPOINT]")
@printing.format_option
@with_agent
def ct_list(agent: AgentClient, scope: str, output: str) -> None:
    """Connections of all endpoints, or of one (its number)."""
    rows = agent.get("/podwire/v1/bpf/ct")
    if scope != "global":
        pod = _pod_of(agent, scope)
        rows = [row for row in rows if row.get("endpoint") == pod]
    printing.show(output, rows, list(CT), map(_columns(CT), rows))


@bpf.group()
def policy() -> None:
    """Policy entries, each with the rule that made it."""


@policy.command(name="list")
@click.argument("endpoint", required=False, metavar="[ENDPOINT]")
@printing.format_option
@with_agent
def policy_list(agent: AgentClient, endpoint: str | None, output: str) -> None:
    """Policy entries of all endpoints, or of one (its number), and the rule behind each (BECAUSE)."""
    rows = agent.get("/podwire/v1/bpf/policy")
    if endpoint is not None:
        _pod_of(agent, endpoint)
        rows = [row for row in rows if int(endpoint) in row.get("endpoints", ())]
    printing.show(output, rows, list(POLICY), map(_columns(POLICY), rows))


def _pod_of(agent: AgentClient, number: str) -> str:
    """``namespace/name`` of an endpoint's pod; NotFound if there is none."""
    if not (number.isascii() and number.isdigit()):
        raise UsageError(
            f"an endpoint is a number, not {number!r}", hint="`podwire endpoint list` shows them"
        )
    name: str = agent.get(f"/v1/endpoint/{number}")["status"]["external-identifiers"]["pod-name"]
    return name
