"""Waiting until every node has taken in what the cluster is: pods have identities everywhere,
policies are in the kernel.

An applied policy is in force a few milliseconds after the API has it, on each node by itself.
Whoever wants to test what it does waits here first.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from podwire.base.errors import PodwireError, Unreachable
from podwire.client.agent import AgentClient
from podwire.sandbox import view

Policy = tuple[str, str, str, int]  # kind, namespace, name, generation; generation 0 = it must be gone
LOCAL = 256  # the first identity that is a pod's


def settle(sandbox: str, policies: Iterable[Policy] = (), timeout: float = 10.0) -> None:
    """Until all agents know all pods and have `policies` in force. Unreachable says what is missing."""
    places, plan = view.open_sandbox(sandbox)
    wanted = list(policies)
    deadline = time.monotonic() + timeout
    for node in plan.nodes:
        agent = AgentClient(places.node(node.name) / "podwire.sock", node=node.name)
        while missing := _missing(agent, sandbox, wanted):
            if time.monotonic() > deadline:
                raise Unreachable(f"node {node.name} has not taken in within {timeout:g} s: {missing}")
            time.sleep(0.01)


def _missing(agent: AgentClient, sandbox: str, policies: list[Policy]) -> str:
    try:
        return _policies_missing(agent, policies) or _pods_missing(agent, sandbox)
    except PodwireError as error:
        return str(error)


def _policies_missing(agent: AgentClient, policies: list[Policy]) -> str:
    known = {(row["kind"], row["namespace"], row["name"]): row for row in _table(agent, "policies")}
    for kind, namespace, name, generation in policies:
        row = known.get((kind, namespace, name))
        if generation == 0 and row is not None:
            return f"the end of {kind} {namespace}/{name}"
        if generation and (row is None or row["generation"] < generation):
            return f"{kind} {namespace}/{name}"
    tables = {one["name"]: one for one in agent.get("/podwire/v1/tables")}
    revision = 1 + int(tables["policies"]["revision"])
    if policies:
        for row in _table(agent, "endpoint_policies"):
            if row["revision"] < revision:
                return f"the policies of endpoint {row['endpoint']}"
    if len(agent.get("/podwire/v1/bpf/policy")) != int(tables["policy_entries"]["rows"]):
        return "policy entries in the kernel"
    return ""


def _pods_missing(agent: AgentClient, sandbox: str) -> str:
    rows = {row["prefix"].partition("/")[0]: row for row in _table(agent, "ipcache")}
    places, plan = view.open_sandbox(sandbox)
    nodes = {str(places.netns(node.name)) for node in plan.nodes}
    for pod in view.pods(places):
        if pod.netns in nodes or not pod.attached:
            continue
        for address in pod.addresses:
            if rows.get(address, {}).get("identity", 0) < LOCAL:
                return f"the identity of pod {pod.namespace}/{pod.name} ({address})"
    return ""


def _table(agent: AgentClient, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = agent.get(f"/podwire/v1/tables/{name}")
    return rows
