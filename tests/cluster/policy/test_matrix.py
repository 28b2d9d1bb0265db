"""Random policies in a real cluster: every pod tries every other; what comes through is what the rules say.

Objects go in through the API, are in force on two nodes, and real sockets are the judges. What is expected
is the language's definition: the caller's egress and the callee's ingress.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.property.worlds import NAMESPACES, World

from podwire.model import labels
from podwire.model.decide import decide
from podwire.model.labels import Labels
from podwire.model.rule import Direction, Rule
from podwire.policy.parse import parse
from podwire.sandbox import connectivity
from podwire.sandbox.connectivity import Attempt
from podwire.testing.cluster import Cluster

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
WORLDS = 8
PORTS = {"http": frozenset({(6, 80)}), "admin": frozenset({(6, 8080)})}
VERSIONS = {"NetworkPolicy": "networking.k8s.io/v1"}
SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)


def pod_labels() -> dict[str, Labels]:
    """``a/web`` → the labels of its identity."""
    found = {}
    for item in yaml.safe_load_all((HERE / "pods.yaml").read_text()):
        if item["kind"] == "Pod":
            meta = item["metadata"]
            space = meta["namespace"]
            found[f"{space}/{meta['name']}"] = labels.of_pod(
                meta["labels"],
                namespace=space,
                namespace_labels=NAMESPACES[space] | {"kubernetes.io/metadata.name": space},
                service_account="default",
                cluster="default",
            )
    return found


def expected(rules: tuple[Rule, ...], source: Labels, target: Labels, port: int) -> bool:
    leaves = decide(rules, source, Direction.EGRESS, target, 6, port, named=PORTS)
    enters = decide(rules, target, Direction.INGRESS, source, 6, port, named=PORTS)
    return leaves.outcome.passes and enters.outcome.passes


def policies(seed: int) -> list[dict[str, Any]]:
    """The objects of a random world, as an API server accepts them."""
    found = World.of(seed).objects
    for one in found:
        one["apiVersion"] = VERSIONS.get(one["kind"], "cilium.io/v2")
        strict(one["spec"])
    return found


def strict(value: Any) -> None:
    """Kubernetes wants an exception to be smaller than what it is excepted from."""
    if isinstance(value, dict):
        if "except" in value:
            value["except"] = [one for one in value["except"] if one != value["cidr"]]
        for content in value.values():
            strict(content)
    elif isinstance(value, list):
        for content in value:
            strict(content)


async def test_what_comes_through_is_what_the_rules_say(sandbox: Callable[..., Cluster]) -> None:
    print(f"PODWIRE_SEED={SEED}")
    known = pod_labels()
    async with sandbox("lab.yaml") as lab:
        for number in range(WORLDS):
            objects = policies(SEED + number)
            await lab.apply(*objects)
            rules = tuple(rule for one in objects for rule in parse(one))
            wrong = await differences(lab, rules, known)
            assert not wrong, f"seed {SEED + number}: {wrong}\n{yaml.safe_dump_all(objects)}"
            await lab.delete(*objects)


async def differences(lab: Cluster, rules: tuple[Rule, ...], known: dict[str, Labels]) -> list[str]:
    """Who reaches whom and should not, or the other way round."""
    pods = {f"{one.namespace}/{one.name}": one for one in lab.pods if f"{one.namespace}/{one.name}" in known}
    assert pods.keys() == known.keys()
    attempts = [
        Attempt(*source.split("/"), pods[target].address, port, shown=target)
        for source in pods
        for target in pods
        for port in (80, 8080)
        if source != target
    ]
    tried = await asyncio.to_thread(connectivity.attempt_all, lab.name, attempts, 1.0)
    wrong = []
    for one in tried:
        source = f"{one.attempt.namespace}/{one.attempt.pod}"
        right = expected(rules, known[source], known[one.attempt.shown], one.attempt.port)
        if one.reached != right:
            wrong.append(f"{source} -> {one.attempt.shown}:{one.attempt.port} {one.result}, expected {right}")
    return wrong
