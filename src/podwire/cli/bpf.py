"""`podwire bpf`: what the kernel's maps hold, read from the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.cli.values import ENDPOINT, POD, PREFIX, PROTOCOL, SCOPE
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


# filter (agent.interface.FILTERS) → what it means, the same for each list that has it
FILTERS: dict[str, tuple[Any, str]] = {
    "pod": (POD, "only what is of this pod ([NAMESPACE/]NAME)"),
    "address": (PREFIX, "only what has this address, or one of this block (10.0.0.0/8)"),
    "port": (click.IntRange(0, 65535), "only what has this port"),
    "protocol": (PROTOCOL, "only this protocol (TCP, UDP … or its number)"),
}


@click.group()
def bpf() -> None:
    """What the kernel's maps hold."""


def _filters(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that the agent applies before it makes a row."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            kind, help = FILTERS[name]
            command = click.option(f"--{name}", type=kind, help=help)(command)
        return command

    return decorate


def _show(agent: AgentClient, name: str, columns: Mapping[str, str], output: str, **wanted: Any) -> None:
    query = {key: str(value) for key, value in wanted.items() if value is not None}
    found = agent.rows(f"/podwire/v1/bpf/{name}", **query)
    printing.show_items(output, found, list(columns), _columns(columns))


def _columns(columns: Mapping[str, str]) -> Callable[[Row], list[Any]]:
    def cells(row: Row) -> list[Any]:
        return [_one_line(row.get(member)) for member in columns.values()]

    return cells


def _one_line(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@bpf.group()
def lb() -> None:
    """Service addresses and their backends."""


@lb.command(name="list")
@_filters("pod", "address", "port", "protocol")
@printing.format_option
@with_agent
def lb_list(agent: AgentClient, output: str, **wanted: Any) -> None:
    """Service addresses and their backends; an address or a port is looked for in both."""
    _show(agent, "lb", LB, output, **wanted)


@bpf.group()
def ipcache() -> None:
    """Who is behind an address."""


@ipcache.command(name="list")
@_filters("pod", "address")
@printing.format_option
@with_agent
def ipcache_list(agent: AgentClient, output: str, **wanted: Any) -> None:
    """Who is behind an address; with --address the prefixes that hold it."""
    _show(agent, "ipcache", IPCACHE, output, **wanted)


@bpf.group()
def ct() -> None:
    """Connections."""


@ct.command(name="list")
@click.argument("scope", default="global", type=SCOPE, metavar="[global|ENDPOINT]")
@_filters("pod", "address", "port", "protocol")
@printing.format_option
@with_agent
def ct_list(agent: AgentClient, scope: str, output: str, **wanted: Any) -> None:
    """Connections of all endpoints, or of one (its number); --address and --port are of either end."""
    _show(agent, "ct", CT, output, endpoint=None if scope == "global" else scope, **wanted)


@bpf.group()
def policy() -> None:
    """Policy entries, each with the rule that made it."""


@policy.command(name="list")
@click.argument("endpoint", required=False, type=ENDPOINT, metavar="[ENDPOINT]")
@_filters("pod", "port", "protocol")
@printing.format_option
@with_agent
def policy_list(agent: AgentClient, endpoint: str | None, output: str, **wanted: Any) -> None:
    """Policy entries of all endpoints, or of one (its number), and the rule behind each (BECAUSE)."""
    _show(agent, "policy", POLICY, output, endpoint=endpoint, **wanted)
