"""kubectl, unmodified: making, reading, changing and deleting objects."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.compat

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "web:1", command: [sleep, "1000"], ports: [{name: http, containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"""

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""


def test_apply_creates_changes_and_leaves_alone(kubectl: Any) -> None:
    assert "deployment.apps/web created" in kubectl("apply", "-f", "-", stdin=WEB)
    assert "deployment.apps/web unchanged" in kubectl("apply", "-f", "-", stdin=WEB)
    changed = WEB.replace("web:1", "web:2").replace('command: [sleep, "1000"], ', "")
    diff = kubectl.run("diff", "-f", "-", stdin=changed)
    assert diff.code == 1
    assert "-      - command:" in diff.out and "image: web:2" in diff.out
    assert "deployment.apps/web configured" in kubectl("apply", "-f", "-", stdin=changed)
    container = json.loads(kubectl("get", "deploy", "web", "-o", "json"))["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert (container["image"], "command" in container) == ("web:2", False)
    assert container["ports"][0]["protocol"] == "TCP"
    assert kubectl.run("diff", "-f", "-", stdin=changed).code == 0


def test_apply_on_the_server_and_conflicts(kubectl: Any) -> None:
    kubectl("apply", "--server-side", "-f", "-", stdin=WEB)
    kubectl("scale", "deploy/web", "--replicas=1")
    refused = kubectl.run("apply", "--server-side", "-f", "-", stdin=WEB)
    assert refused.code == 1
    assert 'conflict with "kubectl"' in refused.err and ".spec.replicas" in refused.err
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=WEB)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"
    managers = json.loads(kubectl("get", "deploy", "web", "-o", "json", "--show-managed-fields"))
    owners = {(one["manager"], one["operation"]) for one in managers["metadata"]["managedFields"]}
    assert ("kubectl", "Apply") in owners and ("kubectl", "Update") not in owners


def test_create_of_typed_objects(kubectl: Any) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    kubectl("create", "secret", "generic", "s", "--from-literal=user=anna")
    kubectl("create", "deployment", "d", "--image=web:1", "--replicas=1", "--port=80")
    kubectl("create", "service", "nodeport", "n", "--tcp=80:8080")
    kubectl("create", "serviceaccount", "a")
    assert kubectl("create", "token", "a").count(".") == 2
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data.a}") == "b"
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.user}") == "YW5uYQ=="
    assert kubectl(
        "get", "deploy", "d", "-o", "jsonpath={.spec.template.spec.containers[0].ports[0]}"
    ).startswith("{")
    port = int(kubectl("get", "svc", "n", "-o", "jsonpath={.spec.ports[0].nodePort}"))
    assert 30000 <= port <= 32767
    again = kubectl.run("create", "configmap", "c")
    assert again.code == 1 and 'configmaps "c" already exists' in again.err
    assert "(server dry run)" in kubectl("create", "configmap", "never", "--dry-run=server")
    assert kubectl.run("get", "cm", "never").code == 1


def test_get_in_every_form(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    lines = kubectl("get", "pods").splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [line.split()[1:4] for line in lines[1:]] == [["1/1", "Running", "0"]] * 2
    wide = kubectl("get", "pods", "-o", "wide").splitlines()
    assert wide[0].split()[5:7] == ["IP", "NODE"]
    assert {line.split()[6] for line in wide[1:]} == {"n1", "n2"}
    assert kubectl("get", "pods", "-o", "name").count("pod/web-") == 2
    assert kubectl("get", "deploy", "web", "-o", "yaml").startswith("apiVersion: apps/v1")
    assert kubectl("get", "svc,deploy", "-o", "name").split() == ["service/web", "deployment.apps/web"]
    columns = kubectl("get", "svc", "web", "-o", "custom-columns=N:.metadata.name,P:.spec.ports[*].port")
    assert columns.split() == ["N", "P", "web", "80"]
    assert kubectl("get", "svc", "web", "-o", "go-template={{.spec.type}}") == "ClusterIP"
    assert "web" in kubectl("get", "pods", "-A")
    assert kubectl("get", "pods", "-l", "app=web", "-o", "name").count("pod/") == 2
    assert kubectl("get", "pods", "-l", "app notin (web)", "-o", "name") == ""
    assert (
        kubectl("get", "pods", "--field-selector=status.phase=Running,spec.nodeName=n1", "-o", "name").count(
            "pod/"
        )
        == 1
    )
    assert kubectl("get", "pods", "--field-selector=status.phase!=Running", "-o", "name") == ""
    assert kubectl("get", "pods", "--chunk-size=1", "-o", "name").count("pod/") == 2
    assert len(kubectl("get", "all").splitlines()) > 8
    assert kubectl("get", "pods", "--sort-by=.metadata.name", "-o", "name").split() == sorted(
        kubectl("get", "pods", "-o", "name").split()
    )
    assert "web" in kubectl("get", "nodes") or "n1" in kubectl("get", "nodes", "-o", "wide")


def test_get_watch(kubectl: Any) -> None:
    kubectl("create", "configmap", "first")
    watching = kubectl.popen("get", "configmaps", "-w", "-o", "name")
    try:
        assert watching.stdout is not None
        seen = {watching.stdout.readline().strip() for _ in range(2)}
        assert seen == {"configmap/first", "configmap/kube-root-ca.crt"}
        kubectl("create", "configmap", "second")
        assert watching.stdout.readline().strip() == "configmap/second"
        kubectl("delete", "configmap", "first")
        assert watching.stdout.readline().strip() == "configmap/first"
    finally:
        watching.kill()
        watching.communicate()


def test_describe(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=WEB + "---" + POLICY)
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    pod = kubectl("describe", "pods")
    assert "Controlled By:  ReplicaSet/web-" in pod and "Successfully assigned" in pod and "QoS Class:" in pod
    service = kubectl("describe", "svc", "web")
    assert "TargetPort:               http/TCP" in service and "Endpoints:                10.9.0." in service
    deployment = kubectl("describe", "deploy", "web")
    assert "2 desired | 2 updated | 2 total | 2 available" in deployment and "ScalingReplicaSet" in deployment
    assert "Non-terminated Pods:" in kubectl("describe", "node", "n1")
    policy = kubectl("describe", "cnp", "web")
    assert "Endpoint Selector:" in policy and "From Endpoints:" in policy
    assert "ScalingReplicaSet" in kubectl("get", "events")


def test_edit(kubectl: Any, tmp_path: Path) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/a: b/a: edited/' \"$1\"\n")
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    assert "configmap/c edited" in kubectl("edit", "configmap", "c", KUBE_EDITOR=str(editor))
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data.a}") == "edited"


def test_patch_in_three_forms(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    second = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"side:1"}]}}}}'
    kubectl("patch", "deploy", "web", "-p", second)
    names = "jsonpath={.spec.template.spec.containers[*].name}"
    assert sorted(kubectl("get", "deploy", "web", "-o", names).split()) == ["side", "web"]
    removed = '{"spec":{"template":{"spec":{"containers":[{"name":"side","$patch":"delete"}]}}}}'
    kubectl("patch", "deploy", "web", "-p", removed)
    assert kubectl("get", "deploy", "web", "-o", names) == "web"
    kubectl(
        "patch", "deploy", "web", "--type=merge", "-p", '{"metadata":{"labels":{"app":null,"tier":"front"}}}'
    )
    assert json.loads(kubectl("get", "deploy", "web", "-o", "jsonpath={.metadata.labels}")) == {
        "tier": "front"
    }
    operations = (
        '[{"op":"test","path":"/spec/replicas","value":2},{"op":"replace","path":"/spec/replicas","value":3}]'
    )
    kubectl("patch", "deploy", "web", "--type=json", "-p", operations)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"
    failed = kubectl.run("patch", "deploy", "web", "--type=json", "-p", operations)
    assert failed.code == 1 and "testing /spec/replicas" in failed.err
    kubectl("patch", "deploy", "web", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":1}}')
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "1"


def test_label_and_annotate(kubectl: Any) -> None:
    kubectl("create", "configmap", "c")
    kubectl("label", "cm", "c", "tier=front", "app=c")
    refused = kubectl.run("label", "cm", "c", "tier=back")
    assert refused.code == 1 and "already has a value" in refused.err
    kubectl("label", "cm", "c", "tier=back", "--overwrite")
    kubectl("label", "cm", "c", "app-")
    kubectl("annotate", "cm", "c", "note=hello world")
    meta = json.loads(kubectl("get", "cm", "c", "-o", "json"))["metadata"]
    assert (meta["labels"], meta["annotations"]) == ({"tier": "back"}, {"note": "hello world"})


def test_replace_and_wait(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("wait", "deploy/web", "--for=condition=Available", "--timeout=20s")
    kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=20s")
    body = json.loads(kubectl("get", "svc", "web", "-o", "json"))
    body["spec"]["ports"][0]["port"] = 81
    kubectl("replace", "-f", "-", stdin=json.dumps(body))
    stale = kubectl.run("replace", "-f", "-", stdin=json.dumps(body))
    assert stale.code == 1 and "the object has been modified" in stale.err
    kubectl("delete", "deploy", "web", "--cascade=foreground", "--timeout=20s")
    kubectl("wait", "pod", "-l", "app=web", "--for=delete", "--timeout=20s")


def test_delete_in_its_ways(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    kubectl("delete", "deploy", "web", "--cascade=orphan")
    assert kubectl("get", "rs", "-o", "name").count("replicaset") == 1
    kubectl("apply", "-f", "-", stdin=WEB)
    pod = kubectl("get", "pods", "-o", "name").split()[0]
    kubectl("delete", pod, "--force", "--grace-period=0")
    kubectl("delete", "-f", "-", "--timeout=20s", stdin=WEB)
    kubectl("create", "configmap", "c")
    kubectl("patch", "cm", "c", "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    kubectl("delete", "cm", "c", "--wait=false")
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.metadata.deletionTimestamp}")
    kubectl("patch", "cm", "c", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "not found" in kubectl.run("get", "cm", "c").err
    kubectl("delete", "cm", "--all")


def test_unknown_and_wrong_fields_are_named(kubectl: Any) -> None:
    wrong = kubectl.run("apply", "-f", "-", stdin=POLICY.replace("toPorts", "toPort"))
    assert wrong.code == 1 and 'unknown field "spec.ingress[0].toPort"' in wrong.err
    wrong = kubectl.run("apply", "-f", "-", stdin=POLICY.replace("protocol: TCP", "protocol: XTP"))
    assert wrong.code == 1 and "spec.ingress[0].toPorts[0].ports[0].protocol" in wrong.err
    wrong = kubectl.run("apply", "-f", "-", stdin=WEB.replace("containerPort: 80", "containerPort: 99999"))
    assert "spec.template.spec.containers[0].ports[0].containerPort" in wrong.err
    wrong = kubectl.run("create", "configmap", "Not_A_Name")
    assert wrong.code == 1 and "metadata.name: Invalid value" in wrong.err


def test_custom_resources(kubectl: Any) -> None:
    definition = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How big.}
              color: {type: string, default: red}
          status: {type: object, properties: {ready: {type: boolean}}}
"""
    try:
        kubectl("apply", "-f", "-", stdin=definition)
        kubectl("wait", "crd/widgets.example.com", "--for=condition=Established", "--timeout=10s")
        widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n"
        kubectl("apply", "-f", "-", stdin=widget)
        assert kubectl("get", "wd").split() == ["NAME", "SIZE", "w", "3"]
        assert kubectl("get", "wd", "w", "-o", "jsonpath={.spec.color}") == "red"
        assert "How big." in kubectl("explain", "widget.spec.size")
        small = kubectl.run("apply", "-f", "-", stdin=widget.replace("3", "0"))
        assert "spec.size: Invalid value: 0" in small.err
    finally:
        kubectl("delete", "crd", "widgets.example.com")
    assert kubectl.run("get", "widgets").code == 1
