"""`podwire status`: how an agent is."""

from __future__ import annotations

import time
from typing import Any

import click

from podwire.base.errors import Unreachable
from podwire.cli import output as printing
from podwire.cli.agents import with_agent
from podwire.cli.seconds import WAITED
from podwire.client.agent import AgentClient

Shape = dict[str, Any]
GOOD = ("Ok", "Disabled")


@click.command()
@click.option("--verbose", is_flag=True, help="addresses, tables, maps and nodes as well")
@click.option("--wait", is_flag=True, help="wait until all is well")
@click.option(
    "--wait-duration",
    type=WAITED,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="how long",
)
@click.option("--brief", is_flag=True, help="one line")
@printing.format_option
@with_agent
def status(
    agent: AgentClient, verbose: bool, wait: bool, wait_duration: float, brief: bool, output: str
) -> int:
    """How a node's agent is. Ends with 1 if something is not well."""
    answer = _waited(agent, wait_duration) if wait else agent.get("/v1/healthz")
    overall = answer["cilium"]
    if output == "json":
        printing.as_json({"state": overall["state"], "msg": overall["msg"]} if brief else answer)
    elif brief:
        click.echo("OK" if overall["state"] in GOOD else f"error in {printing.safe(overall['msg'])}")
    else:
        for line in _summary(answer) + (_details(answer) if verbose else []):
            click.echo(line)
    return 0 if answer["cilium"]["state"] in GOOD else 1


def _waited(agent: AgentClient, most: float) -> Any:
    """The first good answer, or what there is after `most` seconds."""
    end = time.monotonic() + most
    pause = 0.02
    while True:
        late = time.monotonic() >= end
        try:
            answer = agent.get("/v1/healthz")
            if late or answer["cilium"]["state"] in GOOD:
                return answer
        except Unreachable:
            if late:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


def _summary(answer: Shape) -> list[str]:
    own = answer["podwire"]
    routing = answer["routing"]
    network = routing["inter-host-routing-mode"] + (
        f" [{routing['tunnel-protocol']}]" if routing["tunnel-protocol"] else ""
    )
    pairs = [("Podwire", f"{answer['cilium']['state']}   {own['version']} on node {own['node']}")]
    pairs += [
        (name.replace("-", " ").capitalize(), f"{one['state']}   {one['msg']}".rstrip())
        for name, one in own["components"].items()
    ]
    pairs += [
        ("Network", network),
        ("Families", ", ".join(answer["address-families"])),
        ("Policy enforcement", answer["policy-enforcement-mode"]),
        ("IPAM", answer["ipam"]["status"]),
        ("Services at the socket", _on(answer["kube-proxy-replacement"]["features"]["socketLB"]["enabled"])),
        ("Nodes", str(len(answer["cluster"]["nodes"]))),
    ]
    for policy in own["invalid-policies"]:
        name = "/".join(filter(None, (policy["namespace"], policy["name"])))
        pairs.append(("Not in force", f"{policy['kind']} {name}: {policy['error']}"))
    for service in own["services-not-served"]:
        name = f"{service['namespace']}/{service['name']}"
        pairs.append(("Not served yet", f"{name}: {', '.join(service['not-served'])}"))
    return _aligned(pairs)


def _details(answer: Shape) -> list[str]:
    own = answer["podwire"]
    found = ["", "Addresses of pods:"]
    found += [f"  {ip} ({owner})" for ip, owner in sorted(answer["ipam"]["allocations"].items())]
    found += ["", "Nodes:"]
    rows = [
        (
            one["name"],
            one["primary-address"]["ipv4"]["ip"],
            one["primary-address"]["ipv6"]["ip"],
            one["primary-address"]["ipv4"]["alloc-range"],
            one["primary-address"]["ipv6"]["alloc-range"],
        )
        for one in answer["cluster"]["nodes"]
    ]
    found += printing.lines(["NAME", "IPv4", "IPv6", "POD CIDR v4", "POD CIDR v6"], rows)
    found += ["", "Tables:"]
    tables = [(name, one["rows"], one["ready"]) for name, one in own["tables"].items()]
    found += printing.lines(["TABLE", "ROWS", "READY"], tables)
    found += ["", "Maps:"]
    found += printing.lines(
        ["MAP", "ENTRIES AT MOST"], [(one["name"], one["size"]) for one in answer["bpf-maps"]["maps"]]
    )
    return [printing.safe(line) for line in found]


def _aligned(pairs: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in pairs) + 1
    return [printing.safe(f"{name + ':':<{width}}  {value}") for name, value in pairs]


def _on(enabled: bool) -> str:
    return "Enabled" if enabled else "Disabled"
