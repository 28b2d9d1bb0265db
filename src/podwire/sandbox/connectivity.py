"""Who reaches whom: connections tried from inside pods, and the rule that decided each.

A connection is tried by `reach` in the source pod, all of a pod's at the same time. Why it came out
as it did is taken from the flows that the agents saw while it was tried.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from podwire.base.errors import Unreachable
from podwire.model.flow import CLAUSE_LABEL, DEFAULT_DENY_LABEL
from podwire.sandbox import images, view
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import Places

DROPPED = 2
SETTLE = 5.0  # s that flows may take to arrive


class Attempt(msgspec.Struct, frozen=True):
    """A connection to try. `host` is an address or a name, `pods` who may answer it (``ns/pod``)."""

    namespace: str
    pod: str
    host: str
    port: int
    protocol: str = "tcp"
    shown: str = ""
    pods: tuple[str, ...] = ()
    expected: bool = True

    @property
    def target(self) -> str:
        return f"{self.protocol}/{self.host}/{self.port}"


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt came out: ``ok``, ``timeout``, ``refused``, …, and the rule behind it."""

    attempt: Attempt
    result: str
    because: str = ""

    @property
    def reached(self) -> bool:
        return self.result == "ok"

    @property
    def as_expected(self) -> bool:
        # A name that is not known is no denial: only silence is what a dropped packet looks like.
        return self.reached if self.attempt.expected else self.result == "timeout"


def attempt_all(sandbox: str, attempts: Iterable[Attempt], timeout: float = 1.0) -> list[Outcome]:
    """Try all of them at the same time; in the order given."""
    wanted = list(attempts)
    sources = dict.fromkeys((one.namespace, one.pod) for one in wanted)
    children = []
    for source in sources:
        targets = [one.target for one in wanted if (one.namespace, one.pod) == source]
        words, environment = view.pod_command(sandbox, *source, None, reach_words(timeout, targets))
        child = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append((source, child))
    results = {}
    for source, child in children:
        output, error = child.communicate(timeout=timeout + 30)
        if child.returncode:
            raise Unreachable(
                f"cannot try connections from {'/'.join(source)}: {error.strip() or child.returncode}"
            )
        for line in output.splitlines():
            target, _, result = line.partition(" ")
            results[source, target] = result
    return [Outcome(one, results[(one.namespace, one.pod), one.target]) for one in wanted]


def reach_words(timeout: float, targets: list[str]) -> list[str]:
    """The command line that tries `targets` from where it runs."""
    script = str(Path(__file__).with_name("reach.py"))
    return [images.interpreter(), "-I", "-S", script, f"{timeout:g}", *targets]


def explained(sandbox: str, outcomes: list[Outcome], since: float) -> list[Outcome]:
    """The outcomes with their reasons, once the flows since `since` tell one for each."""
    deadline = time.monotonic() + SETTLE
    while True:
        flows = list(read_flows(sandbox, since))
        found = [msgspec.structs.replace(one, because=why(one, flows)) for one in outcomes]
        if all(one.because for one in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def read_flows(sandbox: str, since: float = 0.0, last: int = 100_000) -> Iterator[Any]:
    """GetFlowsResponse messages with flows of all nodes, oldest first."""
    # Imported here: gRPC costs 100 ms, and most commands need no flows.
    from podwire.api import observer_pb2
    from podwire.client.hubble import Connection, Hubble

    request = observer_pb2.GetFlowsRequest(number=last)
    if since:
        request.since.FromNanoseconds(int(since * 1e9))
    places = Places(sandbox, cgroup2())
    with Hubble(Connection(f"unix://{places.hubble}")) as hubble:
        for response in hubble.flows(request):
            if response.HasField("flow"):
                yield response


def why(outcome: Outcome, responses: list[Any]) -> str:
    """The rule that decided, of the flows of this attempt; empty if none tells."""
    mine = [response.flow for response in responses if _belongs(response.flow, outcome.attempt)]
    denied = [text for flow in mine if flow.verdict == DROPPED and (text := because(flow))]
    if denied:
        return denied[-1]
    allowed = dict.fromkeys(text for flow in mine if (text := because(flow)))
    if allowed:
        return ", ".join(allowed)
    return "no policy selects it" if mine and outcome.reached else ""


def _belongs(flow: Any, attempt: Attempt) -> bool:
    layer = flow.l4.TCP if flow.l4.HasField("TCP") else flow.l4.UDP
    if (attempt.protocol == "tcp") != flow.l4.HasField("TCP") or layer.destination_port != attempt.port:
        return False
    if (flow.source.namespace, flow.source.pod_name) != (attempt.namespace, attempt.pod):
        return False
    if attempt.pods:
        return f"{flow.destination.namespace}/{flow.destination.pod_name}" in attempt.pods
    return bool(flow.IP.destination == attempt.host)


def because(flow: Any) -> str:
    """``prod/backend spec.ingress[0]``, ``default deny (prod/backend)``; empty if no rule was asked."""
    policies = [
        *flow.ingress_denied_by,
        *flow.egress_denied_by,
        *flow.ingress_allowed_by,
        *flow.egress_allowed_by,
    ]
    named = []
    for policy in policies:
        clause = next(
            (label.removeprefix(CLAUSE_LABEL) for label in policy.labels if label.startswith(CLAUSE_LABEL)),
            "",
        )
        name = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
        named.append(f"{name} {clause}".strip())
    text = ", ".join(named)
    return (
        f"default deny ({text})" if any(DEFAULT_DENY_LABEL in policy.labels for policy in policies) else text
    )
