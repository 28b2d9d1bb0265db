"""Wrong objects: refused with the line or the path, or named by every agent; nothing of them is in force."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.faults.conftest import (
    Done,
    Object,
    apply,
    get,
    new_name,
    pod,
    podwire,
    policy,
    refused,
    running,
    status,
    wait,
    well,
)

from podwire.base.errors import InvalidObject
from podwire.testing.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
ALL = {"endpointSelector": {}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("lab"), "nodes: 1\n") as cluster:
        asyncio.run(cluster.apply(pod("server", image="web"), pod("client")))
        yield cluster


def kubectl(lab: Cluster, *arguments: str, stdin: str = "") -> Done:
    command = ["kubectl", "--kubeconfig", str(lab.kubeconfig), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def names(lab: Cluster) -> set[str]:
    """All policies there are."""
    done = kubectl(lab, "get", "cnp,ccnp,netpol", "-A", "-o", "name")
    return set(done.stdout.split())


PORTS = {"ports": [{"port": "80", "protocol": "TCP"}]}
REFUSED: dict[str, tuple[Object, str]] = {
    "unknown field": (policy("p", **ALL, ingres=[{}]), "ingres"),
    "port that is none": (
        policy("p", **ALL, ingress=[{"toPorts": [{"ports": [{"port": "70000"}]}]}]),
        "spec.ingress[0].toPorts[0].ports[0].port",
    ),
    "CIDR that is none": (
        policy("p", **ALL, ingress=[{"fromCIDR": ["10.0.0.0/40"]}]),
        "spec.ingress[0].fromCIDR[0]",
    ),
    "HTTP rules": (
        policy("p", **ALL, ingress=[{"toPorts": [{**PORTS, "rules": {"http": [{"path": "/"}]}}]}]),
        "spec.ingress[0].toPorts[0].rules",
    ),
    "DNS names": (
        policy("p", **ALL, egress=[{"toFQDNs": [{"matchName": "a.example"}]}]),
        "spec.egress[0].toFQDNs",
    ),
    "nodes as peers": (
        policy("p", **ALL, ingress=[{"fromNodes": [{"matchLabels": {"a": "b"}}]}]),
        "spec.ingress[0].fromNodes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_policy_that_cannot_be_obeyed_is_named_with_its_path(lab: Cluster, what: str) -> None:
    """At once by the API, or by the agents: condition of the object and status of the node."""
    body, path = REFUSED[what]
    done = kubectl(lab, "apply", "-f", "-", stdin=json.dumps(body))
    if done.returncode:
        assert path in done.stderr, done.stderr
        assert not names(lab)
    else:

        def told() -> str:
            found = (
                get(lab, "cilium.io/v2", "CiliumNetworkPolicy", "p").get("status", {}).get("conditions", [])
            )
            return next((one["message"] for one in found if one["status"] == "False"), "")

        assert path in wait(told, "the condition")
        shown = podwire("status", "--sandbox", lab.name)
        assert shown.returncode == 1 and path in shown.stdout
        assert path in json.dumps(status(lab)["podwire"]["invalid-policies"])
        kubectl(lab, "delete", "cnp", "p")
        wait(lambda: well(lab), "the agent to be well")
    assert asyncio.run(lab["client"].can_reach(lab["server"], port=80))


def test_a_bad_policy_of_another_client_is_named_by_the_agents(lab: Cluster) -> None:
    """What the API takes and no agent can obey: no field checks at the API, as in an older cluster."""
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "named", "namespace": "default"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": "nobody-has-it"}], "from": []}]},
    }
    apply(lab, body)
    asyncio.run(lab.settled())
    # A named port that no pod has allows nothing: the policy is in force, and denies.
    wait(lambda: not asyncio.run(lab["client"].can_reach(lab["server"], port=80)), "the policy in force")
    kubectl(lab, "delete", "netpol", "named")
    wait(lambda: asyncio.run(lab["client"].can_reach(lab["server"], port=80)), "the end of the policy")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n name: b\n", "line 5"),
        ("apiVersion: v1\nkind: Nothing\nmetadata: {name: a}\n", "Nothing"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
            "spec: {nodeNam: n1, containers: [{name: a, image: web}]}\n",
            "spec.nodeNam",
        ),
        (
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\n"
            "spec: {endpointSelector: {}, ingress: [{}], ingresDeny: [{}]}\n",
            "spec.ingresDeny",
        ),
        ("kind: Pod\nmetadata: {name: a}\n", "apiVersion"),
    ],
)
def test_a_wrong_manifest_of_a_lab_leaves_nothing(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "lab.yaml").write_text("nodes: 1\nmanifests: [wrong.yaml]\n")
    (tmp_path / "wrong.yaml").write_text(text)
    name = new_name()
    done = podwire("sandbox", "up", "--name", name, "-f", str(tmp_path))
    if done.returncode == 0:
        podwire("sandbox", "down", "--name", name)
    refused(done, told, "wrong.yaml")
    assert name not in podwire("sandbox", "list").stdout


def test_a_mistyped_field_is_refused_by_the_plugin_for_tests(lab: Cluster) -> None:
    with pytest.raises(InvalidObject, match=r"spec\.ingresDeny"):
        asyncio.run(lab.apply(policy("p", **ALL, ingress=[{}], ingresDeny=[{}])))
    assert not names(lab)


def test_nodes_that_claim_what_another_has_are_named(lab: Cluster) -> None:
    def node(name: str, address: str, cidr: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }

    taken = get(lab, "v1", "Node", "n1", "")
    same = kubectl(lab, "create", "-f", "-", stdin=json.dumps(node("n1", "172.30.250.9", "10.77.0.0/24")))
    assert same.returncode != 0 and 'nodes "n1" already exists' in same.stderr
    assert get(lab, "v1", "Node", "n1", "")["spec"]["podCIDR"] == taken["spec"]["podCIDR"]
    created = kubectl(
        lab, "create", "-f", "-", stdin=json.dumps(node("thief", "172.30.250.9", "10.0.1.128/25"))
    )
    if created.returncode == 0:
        said = wait(
            lambda: "" if well(lab) else str(status(lab)["podwire"]["components"]["kubernetes"]["msg"]),
            "the agent to say so",
        )
        assert "thief" in said and "n1" in said and "10.0.1." in said, said
    else:
        assert "10.0.1." in created.stderr
    assert asyncio.run(lab["client"].can_reach(lab["server"], port=80))
    kubectl(lab, "delete", "node", "thief")
    wait(lambda: well(lab), "the agent to be well")
