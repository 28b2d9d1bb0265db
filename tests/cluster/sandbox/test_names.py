"""Names as long as Kubernetes allows, and what no process can be given: the pod's affair, nobody else's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from podwire.sandbox import children
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import Places
from podwire.sandbox.runner.process import Process

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def places(cli: Run, name: str) -> Iterator[Places]:
    up = cli("sandbox", "up", "--name", name, "--nodes", "1")
    assert up.returncode == 0, up.stderr
    try:
        yield Places(name, cgroup2())
    finally:
        assert cli("sandbox", "down", "--name", name).returncode == 0


def kubectl(places: Places, *words: str, given: str = "") -> str:
    command = ["kubectl", "--kubeconfig", str(places.kubeconfig), *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def control(places: Places) -> Process:
    found = children.claimed(places, "control")
    assert found is not None
    return found


def pod(name: str, namespace: str, **container: object) -> str:
    spec = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "nginx", **container}],
    }
    metadata = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def long(length: int) -> str:
    """A name of labels of 60 characters."""
    name = ".".join(["p" * 60] * 5)[: length - 1].rstrip(".")
    return name + "x" * (length - len(name))


def test_pods_of_long_names_run_and_go(places: Places) -> None:
    before = control(places)
    space = "n" * 63
    kubectl(places, "create", "namespace", space)
    named = [
        (space, long(180)),
        (space, long(253)),
        ("default", "a" * 64),
        ("default", long(237)),
        ("default", long(253)),
    ]
    for namespace, name in named:
        kubectl(places, "apply", "-f", "-", given=pod(name, namespace))
    for namespace, name in named:
        kubectl(places, "-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=45s")
        host = kubectl(places, "-n", namespace, "exec", name, "--", "hostname").strip()
        assert host == name[:63].rstrip("-.")
    for namespace, name in named:
        kubectl(places, "-n", namespace, "delete", "pod", name, "--timeout=45s")
    assert control(places) == before


def test_what_no_process_can_be_given_keeps_a_container_waiting(places: Places) -> None:
    before = control(places)
    kubectl(places, "apply", "-f", "-", given=pod("odd", "default", command=["sleep", "1\0"]))
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    kubectl(places, "wait", f"--for={waiting}=RunContainerError", "pod/odd", "--timeout=30s")
    kubectl(places, "delete", "pod", "odd", "--timeout=30s")
    assert control(places) == before
