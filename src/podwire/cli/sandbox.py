"""`podwire sandbox`: clusters on this machine."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import click

from podwire.base.errors import ConfigError, InvalidObject, PodwireError
from podwire.cli.seconds import LIMIT

# Every command that takes the name of a sandbox that is there.
_name = click.option(
    "--name",
    envvar="PODWIRE_SANDBOX",
    default="default",
    show_default=True,
    metavar="NAME",
    help="the sandbox",
)


@click.group(no_args_is_help=True)
def sandbox() -> None:
    """Clusters on this machine: nodes and pods made of namespaces, the real datapath between them."""


@sandbox.command()
@click.option(
    "--name", envvar="PODWIRE_SANDBOX", default=None, help="its name (default: the lab's, or default)"
)
@click.option("--nodes", type=click.IntRange(1), default=None, help="how many nodes (default: 2)")
@click.option("--ip-family", type=click.Choice(["ipv4", "ipv6", "dual"]), default=None, help="default: ipv4")
@click.option("--routing", type=click.Choice(["native", "tunnel"]), default=None, help="default: native")
@click.option(
    "-f", "--file", "lab_file", type=click.Path(path_type=Path), help="a lab.yaml, or a folder with one"
)
@click.option(
    "--timeout",
    type=LIMIT,
    envvar="PODWIRE_UP_TIMEOUT",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="seconds to wait until nodes and pods are ready",
)
def up(
    name: str | None,
    nodes: int | None,
    ip_family: str | None,
    routing: str | None,
    lab_file: Path | None,
    timeout: float,
) -> None:
    """Bring a sandbox up; returns when its nodes and the lab's pods are ready."""
    from podwire.sandbox import lab as labs
    from podwire.sandbox import processes
    from podwire.sandbox.up import down as take_down
    from podwire.sandbox.up import up as bring_up

    came = end_by_interrupt()
    began = time.monotonic()
    given: dict[str, Any] = {"nodes": nodes, "ip_family": ip_family, "routing": routing, "name": name}
    wanted = labs.changed(labs.read(lab_file) if lab_file else labs.Lab(), given)
    try:
        made = bring_up(wanted, wanted.name, processes.work(), timeout=timeout, tell=_say)
    except InvalidObject as error:  # addresses that clash show when they are planned
        where = f"{labs.file_of(lab_file)}: " if lab_file else ""
        raise ConfigError(f"{where}{error}", hint=error.hint) from error
    if came:
        take_down(made.name)
        raise KeyboardInterrupt
    option = "" if made.name == "default" else f" --name {made.name}"
    click.echo(f"Sandbox “{made.name}” is up: {_names(made)}, {time.monotonic() - began:.1f} s.")
    click.echo(f"  eval $(podwire sandbox env{option})    # then kubectl and hubble talk to it")


def end_by_interrupt() -> list[int]:
    """SIGTERM and the end of its terminal end this command as Ctrl-C does: what it made is removed.

    Returns the signals that came: an interrupt that comes inside a callback of the interpreter's
    (around a fork, in a finalizer) is only printed, and has to be looked for.
    """
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: it is to outlive its terminal
        signal.signal(signal.SIGHUP, interrupt)
    return came


def _names(plan: Any) -> str:
    return "nodes " + ", ".join(f"{node.name} ({node.addresses[0]})" for node in plan.nodes)


def _say(text: str) -> None:
    click.echo(text, err=True)


@sandbox.command()
@_name
def down(name: str) -> None:
    """Remove a sandbox and everything it made, also one that a crash left."""
    from podwire.sandbox.up import down as take_down

    if failures := take_down(name):
        raise PodwireError(
            f"not everything could be removed: {failures[0]}", hint="run it again, or see what holds it"
        )
    click.echo(f"Sandbox “{name}” is removed.")


@sandbox.command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="how to print")
def list_command(output: str) -> None:
    """All sandboxes of this machine, whole or not."""
    from podwire.sandbox.view import overview

    found = overview()
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    rows = [("NAME", "STATE", "NODES", "PODS", "FAMILY", "ROUTING", "API", "DIRECTORY")]
    rows += [
        (
            one["name"],
            one["state"],
            ",".join(one["nodes"]),
            str(one["pods"]),
            one["ipFamily"],
            one["routing"],
            one["api"],
            one["directory"],
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@sandbox.command()
@_name
def env(name: str) -> None:
    """Print exports of KUBECONFIG, HUBBLE_SERVER and PODWIRE_SANDBOX, for eval."""
    from podwire.sandbox.view import environment

    for key, value in environment(name).items():
        click.echo(f"export {key}={value}")


@sandbox.command("exec", context_settings={"ignore_unknown_options": True})
@_name
@click.option("-n", "--namespace", default="default", show_default=True, help="the pod's namespace")
@click.option("-c", "--container", default=None, help="the container (default: the first)")
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(
    name: str, namespace: str, container: str | None, pod: str, command: tuple[str, ...]
) -> None:
    """Run COMMAND in a pod: podwire sandbox exec POD -- COMMAND."""
    from podwire.sandbox.view import pod_command

    words, environment = pod_command(name, namespace, pod, container, list(command))
    os.execve(words[0], words, {**environment, "TERM": os.environ.get("TERM", "dumb")})


@sandbox.command("node", context_settings={"ignore_unknown_options": True})
@_name
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def node_command(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on a node (or in a world): podwire sandbox node n1 -- COMMAND."""
    from podwire.sandbox.view import node_command as on_node

    words = on_node(name, node, list(command))
    os.execv(words[0], words)


@sandbox.command("restart-agent")
@_name
@click.argument("node")
def restart_agent(name: str, node: str) -> None:
    """Restart the agent of a node; its datapath goes on meanwhile."""
    from podwire.sandbox.view import restart

    restart(name, f"agent {node}")
    click.echo(f"The agent of {node} restarts.")
