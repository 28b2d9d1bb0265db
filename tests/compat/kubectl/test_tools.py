"""kubectl, unmodified: the tools around pods and nodes that people reach for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.compat


def run_pod(kubectl: Any, name: str, *command: str) -> None:
    kubectl("run", name, "--image=local", "--restart=Never", "--command", "--", *command)
    kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=20s")


def test_copy_in_and_out(kubectl: Any, tmp_path: Path) -> None:
    run_pod(kubectl, "box", "sleep", "1000")
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 4000)
    kubectl("cp", str(source), f"box:{there}")
    assert there.read_bytes() == source.read_bytes()
    kubectl("cp", f"box:{there}", str(back))
    assert back.read_bytes() == source.read_bytes()


def test_taint_and_untaint(kubectl: Any) -> None:
    try:
        kubectl("taint", "node", "n2", "special=yes:NoSchedule")
        assert "special=yes:NoSchedule" in kubectl("describe", "node", "n2")
        kubectl("create", "deployment", "web", "--image=web:1", "--replicas=3")
        kubectl("rollout", "status", "deploy/web", "--timeout=20s")
        assert set(kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}").split()) == {"n1"}
    finally:
        kubectl("taint", "node", "n2", "special-")


def test_set_env_and_resources(kubectl: Any) -> None:
    kubectl("create", "deployment", "web", "--image=web:1")
    kubectl("set", "env", "deploy/web", "COLOR=blue")
    kubectl("set", "resources", "deploy/web", "--limits=cpu=200m,memory=64Mi")
    container = json.loads(kubectl("get", "deploy", "web", "-o", "json"))["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert container["env"] == [{"name": "COLOR", "value": "blue"}]
    assert container["resources"]["requests"] == {"cpu": "200m", "memory": "64Mi"}
    kubectl("set", "env", "deploy/web", "COLOR-")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env}") in (
        "",
        "[]",
    )
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")


def test_events_of_one_object(kubectl: Any) -> None:
    kubectl("create", "deployment", "web", "--image=web:1")
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    shown = kubectl("events", "--for", "deployment/web")
    assert "ScalingReplicaSet" in shown and "SuccessfulCreate" not in shown
    assert "Scheduled" in kubectl("get", "events", "--field-selector=involvedObject.kind=Pod")


def test_logs_of_many_pods(kubectl: Any) -> None:
    kubectl(
        "create", "deployment", "talk", "--image=x", "--replicas=2", "--", "sh", "-c", "echo hi; sleep 1000"
    )
    kubectl("rollout", "status", "deploy/talk", "--timeout=20s")
    kubectl("wait", "pods", "-l", "app=talk", "--for=condition=Ready", "--timeout=20s")
    assert "hi" in kubectl("logs", "deploy/talk")
    assert kubectl("logs", "-l", "app=talk", "--prefix").count("hi") == 2


def test_replace_by_force_and_generated_names(kubectl: Any) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    body = json.loads(kubectl("get", "cm", "c", "-o", "json"))
    body["data"] = {"a": "2"}
    kubectl("replace", "--force", "-f", "-", stdin=json.dumps(body))
    renewed = json.loads(kubectl("get", "cm", "c", "-o", "json"))
    assert renewed["data"] == {"a": "2"} and renewed["metadata"]["uid"] != body["metadata"]["uid"]
    made = kubectl(
        "create", "-f", "-", stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"g-"}}'
    )
    assert made.startswith("configmap/g-") and len(made.split()[0]) == len("configmap/g-") + 5


def test_kinds_that_are_not_served(kubectl: Any) -> None:
    refused = kubectl.run("create", "job", "j", "--image=x")
    assert refused.code == 1 and "the server could not find the requested resource" in refused.err
    refused = kubectl.run("apply", "-f", "-", stdin="apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\n")
    assert refused.code == 1 and 'no matches for kind "Job" in version "batch/v1"' in refused.err
    assert "error: the server doesn't have a resource type" in kubectl.run("get", "gizmos").err


def test_raw_requests(kubectl: Any) -> None:
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert json.loads(kubectl("get", "--raw", "/version"))["minor"] == "32"
    assert json.loads(kubectl("get", "--raw", "/api/v1/namespaces/default"))["status"]["phase"] == "Active"
