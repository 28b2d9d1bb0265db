"""Which agent a command talks to: --socket, or a node of a sandbox, or the only one there is."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from podwire.base.errors import NotFound, NotPermitted, UsageError
from podwire.client.agent import AgentClient

HOST = Path("/run/podwire/podwire.sock")  # an agent that was started without a sandbox
SANDBOXES = Path("/run/podwire/sandboxes")
DEFAULT = "default"  # the name `podwire sandbox up` gives


def with_agent(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name an agent, and call it with the AgentClient first."""

    @click.option(
        "--socket", "socket_path", envvar="PODWIRE_SOCKET", metavar="PATH", help="the agent's socket"
    )
    @click.option(
        "--sandbox",
        envvar="PODWIRE_SANDBOX",
        metavar="NAME",
        help="a sandbox (default: “default”, or the first)",
    )
    @click.option("--node", envvar="PODWIRE_NODE", metavar="NODE", help="a node of it (default: the first)")
    @functools.wraps(command)
    def run(socket_path: str | None, sandbox: str | None, node: str | None, **options: Any) -> Any:
        # What is written on the command line wins over what the environment says.
        given = {name for name in ("socket_path", "sandbox", "node") if on_command_line(name)}
        for name, value in (("socket_path", socket_path), ("sandbox", sandbox), ("node", node)):
            if name in given and not value:
                option = "--socket" if name == "socket_path" else f"--{name}"
                raise UsageError(
                    f"{option}: an empty name names nothing", hint="leave it out, or give a name"
                )
        if "socket_path" in given:
            sandbox, node = (sandbox if "sandbox" in given else None), (node if "node" in given else None)
        elif given:
            socket_path = None
        return command(find(socket_path, sandbox, node), **options)

    return run


def on_command_line(name: str) -> bool:
    """Whether the option was written, not taken from the environment or a default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def find(
    socket_path: str | None,
    sandbox: str | None = None,
    node: str | None = None,
    *,
    sandboxes: Path = SANDBOXES,
    host: Path = HOST,
) -> AgentClient:
    """The agent meant. UsageError, NotFound or NotPermitted if that is none."""
    if socket_path:
        if sandbox or node:
            raise UsageError("--socket and --sandbox or --node name two agents", hint="give one of them")
        return AgentClient(socket_path)
    if not sandbox and not node and _is_socket(host):
        return AgentClient(host)
    places = _sandboxes(sandboxes)
    if sandbox is None:
        if not places:
            raise NotFound(
                "no agent runs here", hint="`podwire sandbox up` starts a cluster; --socket names an agent"
            )
        sandbox = DEFAULT if DEFAULT in places else next(iter(places))
    if sandbox not in places:
        known = ", ".join(places) or "none"
        raise NotFound(f"there is no sandbox {sandbox}", hint=f"sandboxes here: {known}")
    nodes = places[sandbox]
    if node is None:
        if not nodes:
            raise NotFound(f"sandbox {sandbox} has no nodes", hint="it may still be starting")
        node = nodes[0]
    if node not in nodes:
        raise NotFound(
            f"sandbox {sandbox} has no node {node}", hint=f"its nodes: {', '.join(nodes) or 'none'}"
        )
    return AgentClient(sandboxes / sandbox / "nodes" / node / "podwire.sock", node=node)


def siblings(agent: AgentClient) -> list[AgentClient]:
    """The agents of the other nodes of its sandbox; none for an agent outside a sandbox."""
    own = Path(agent.path)
    nodes = own.parent.parent
    if nodes.name != "nodes" or own.parent.name != agent.node:
        return []
    return [AgentClient(nodes / node / own.name, node=node) for node in _nodes(nodes) if node != agent.node]


def relay_of(sandbox: str, *, sandboxes: Path = SANDBOXES) -> str:
    """The address of the Hubble server of a sandbox; NotFound if there is no such."""
    places = _sandboxes(sandboxes)
    if sandbox not in places:
        known = ", ".join(places) or "none"
        raise NotFound(f"there is no sandbox {sandbox[:60]}", hint=f"sandboxes here: {known}")
    return f"unix://{sandboxes / sandbox / 'hubble.sock'}"


def _sandboxes(place: Path) -> dict[str, list[str]]:
    """Name → its nodes, in order of name (n2 before n10)."""
    try:
        names = sorted(entry.name for entry in place.iterdir() if entry.is_dir())
        return {name: _nodes(place / name / "nodes") for name in names}
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise NotPermitted(
            "only root may talk to podwire's agents", hint="run the command as root, with sudo for example"
        ) from error


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except PermissionError:
        return True  # something is there that may not be looked at: connecting will say so


def _nodes(place: Path) -> list[str]:
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return []
    return sorted(names, key=lambda name: (len(name), name))
