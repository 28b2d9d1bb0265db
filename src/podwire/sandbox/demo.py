"""The demo: the cluster of ``labs/first-light``, who may reach whom in it, and why.

What is expected follows from ``labs/first-light/policy.yaml``: one line here for each of its rules,
and one for what each does not allow.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from podwire.base.errors import NotFound
from podwire.sandbox import view
from podwire.sandbox.connectivity import Attempt
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import RUN, Places, names
from podwire.sandbox.up import down

NAMESPACE = "prod"
RESOLVER = "203.0.113.53"
DROPPED, POLICY_VERDICT = 2, 5  # Hubble's numbers
BACKENDS = ("prod/backend-1", "prod/backend-2")


def lab() -> Path:
    """The folder of the lab: beside the sources, or installed."""
    for root in (Path(__file__).resolve().parents[3], Path("/usr/share/podwire")):
        if (root / "labs" / "first-light" / "lab.yaml").exists():
            return root / "labs" / "first-light"
    raise NotFound("the demo's lab labs/first-light is not there", hint="run podwire from its source tree")


def name() -> str:
    """A name that no other demo on this machine has."""
    return f"demo-{os.getpid()}"


def remove_leftovers() -> None:
    """Demos that were killed cannot remove their clusters; the next one does."""
    for other in names():
        pid = other.removeprefix("demo-")
        if other != pid and pid.isdigit() and not Path(f"/proc/{pid}").exists() and not _kept(other):
            down(other)


def keep(sandbox: str) -> None:
    """Somebody wants to look around: no later demo removes this one."""
    (RUN / sandbox / "keep").touch()


def _kept(sandbox: str) -> bool:
    return (RUN / sandbox / "keep").exists()


def telling(flow: Any) -> bool:
    """Whether a flow shows a decision: a drop, a verdict, or a connection's first packet."""
    if flow.source.namespace != NAMESPACE and flow.destination.namespace != NAMESPACE:
        return False
    flags = flow.l4.TCP.flags
    first = flags.SYN and not flags.ACK
    return bool(flow.verdict == DROPPED or flow.event_type.type == POLICY_VERDICT or first)


def attempts(sandbox: str) -> list[Attempt]:
    """Every connection the demo tries, with what the policy says about it."""
    pods = view.pods(Places(sandbox, cgroup2()))
    addresses = {pod.name: pod.addresses[0] for pod in pods if pod.namespace == NAMESPACE}

    def service(source: str, port: int, expected: bool) -> Attempt:
        return Attempt(
            NAMESPACE, source, "backend", port, shown="service backend", pods=BACKENDS, expected=expected
        )

    def pod(source: str, destination: str, port: int, expected: bool) -> Attempt:
        pods = (f"{NAMESPACE}/{destination}",)
        return Attempt(
            NAMESPACE, source, addresses[destination], port, shown=destination, pods=pods, expected=expected
        )

    def outside(source: str, protocol: str, port: int, expected: bool) -> Attempt:
        return Attempt(NAMESPACE, source, RESOLVER, port, protocol, shown=RESOLVER, expected=expected)

    return [
        service("frontend", 8080, True),
        pod("frontend", "backend-1", 8080, True),
        pod("frontend", "backend-2", 8080, True),
        service("frontend", 9090, False),
        service("prometheus", 9090, True),
        service("prometheus", 8080, False),
        pod("unauthorized", "backend-1", 8080, False),
        pod("unauthorized", "backend-2", 8080, False),
        pod("unauthorized", "database", 5432, True),
        pod("backend-1", "database", 5432, True),
        pod("backend-2", "database", 5432, True),
        outside("backend-1", "udp", 53, True),
        outside("backend-1", "tcp", 80, False),
        outside("unauthorized", "tcp", 80, True),
    ]
