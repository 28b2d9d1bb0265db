"""The rules of objects: names, validation with paths, defaults, immutability, deletion."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.formats import quantity
from podwire.apiserver.options import DeleteOptions, Options
from podwire.apiserver.status import StatusError

Object = dict[str, Any]
CONTAINER = {"name": "c", "image": "web:1"}
POD = {"metadata": {"name": "p"}, "spec": {"containers": [CONTAINER]}}


def pod(**spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": [dict(CONTAINER)], **spec}}


def refused(world: Any, plural: str, body: Object, **options: Any) -> StatusError:
    kind = world.kind(plural)
    with pytest.raises(StatusError) as caught:
        world.objects.create(kind, "default" if kind.namespaced else "", body, Options("test", **options))
    return caught.value


def places(error: StatusError) -> list[str]:
    assert error.details is not None
    return [cause["field"] for cause in error.details["causes"]]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"containers": []}, "spec.containers"),
        ({"containers": "none"}, "spec.containers"),
        ({"containers": [{"image": "x"}]}, "spec.containers[0].name"),
        ({"containers": [{"name": "No", "image": "x"}]}, "spec.containers[0].name"),
        ({"containers": [CONTAINER, CONTAINER]}, "spec.containers[1]"),
        (
            {"containers": [{**CONTAINER, "ports": [{"containerPort": 0}]}]},
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            {"containers": [{**CONTAINER, "ports": [{"containerPort": "80"}]}]},
            "spec.containers[0].ports[0].containerPort",
        ),
        ({"containers": [{**CONTAINER, "env": [{"name": "1X"}]}]}, "spec.containers[0].env[0].name"),
        (
            {"containers": [{**CONTAINER, "resources": {"limits": {"cpu": "a"}}}]},
            "spec.containers[0].resources.limits.cpu",
        ),
        (
            {"containers": [{**CONTAINER, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            "spec.containers[0].volumeMounts[0].name",
        ),
        ({"containers": [{**CONTAINER, "readinessProbe": {}}]}, "spec.containers[0].readinessProbe"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds"),
        ({"hostNetwork": "yes"}, "spec.hostNetwork"),
    ],
)
def test_pods_name_what_is_wrong(world: Any, spec: Object, path: str) -> None:
    error = refused(world, "pods", {"metadata": {"name": "p"}, "spec": {**POD["spec"], **spec}})
    assert error.code == 422
    assert path in places(error)


@pytest.mark.parametrize(
    ("meta", "path"),
    [
        ({"name": "UPPER"}, "metadata.name"),
        ({"name": ""}, "metadata.name"),
        ({"name": "a", "labels": {"a b": "c"}}, "metadata.labels"),
        ({"name": "a", "labels": {"a": "-"}}, "metadata.labels"),
        ({"name": "a", "labels": {"a": 1}}, "metadata.labels.a"),
        ({"name": "a", "annotations": {"/x": "c"}}, "metadata.annotations"),
        ({"name": {}}, "metadata.name"),
        ({"name": "a", "labels": []}, "metadata.labels"),
        ({"name": "a", "finalizers": ""}, "metadata.finalizers"),
        ({"name": "a", "ownerReferences": {}}, "metadata.ownerReferences"),
        ({"name": "a", "finalizers": ["a b"]}, "metadata.finalizers[0]"),
        ({"name": "a", "ownerReferences": [{"kind": "X"}]}, "metadata.ownerReferences[0].uid"),
    ],
)
def test_metadata(world: Any, meta: Object, path: str) -> None:
    assert path in places(refused(world, "configmaps", {"metadata": meta}))


def test_unknown_fields_by_the_clients_wish(world: Any) -> None:
    body = pod()
    body["spec"]["containers"][0]["imagee"] = "x"
    error = refused(world, "pods", body, validation="Strict")
    assert error.code == 400 and 'unknown field "spec.containers[0].imagee"' in str(error)
    warned = world.objects.create(world.kind("pods"), "default", body, Options("test", validation="Warn"))
    assert warned.warnings == ['unknown field "spec.containers[0].imagee"']
    assert "imagee" not in world.get("pods", "p")["spec"]["containers"][0]
    body["metadata"]["name"] = "q"
    silent = world.objects.create(world.kind("pods"), "default", body, Options("test", validation="Ignore"))
    assert silent.warnings == []


def test_unknown_fields_of_metadata_are_named_and_dropped(world: Any) -> None:
    body = {"metadata": {"name": "typo", "lables": {"a": "b"}}}
    made = world.create("configmaps", body)
    assert "lables" not in made["metadata"]
    error = refused(world, "configmaps", {"metadata": {"name": "m", "lables": {}}}, validation="Strict")
    assert 'unknown field "metadata.lables"' in str(error)


def test_defaults_of_pods(world: Any) -> None:
    made = world.create("pods", pod())
    spec = made["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"], spec["serviceAccountName"]) == (
        "Always",
        "ClusterFirst",
        "default",
    )
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


def test_a_pods_spec_is_fixed_but_for_its_image(world: Any) -> None:
    world.create("pods", pod())
    kind = world.kind("pods")

    def image(body: Object) -> None:
        body["spec"]["containers"][0]["image"] = "web:2"

    def command(body: Object) -> None:
        body["spec"]["containers"][0]["command"] = ["x"]

    world.objects.change(kind, "default", "p", image)
    with pytest.raises(StatusError, match="pod updates may not change fields"):
        world.objects.change(kind, "default", "p", command)


def test_versions_are_compared(world: Any) -> None:
    world.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    kind, old = world.kind("configmaps"), world.get("configmaps", "c")
    world.objects.update(kind, "default", "c", {**old, "data": {"a": "2"}})
    with pytest.raises(StatusError) as caught:
        world.objects.update(kind, "default", "c", {**old, "data": {"a": "3"}})
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")
    again = refused(world, "configmaps", {"metadata": {"name": "c"}})
    assert (again.code, again.reason) == (409, "AlreadyExists")


def test_generation_counts_changes_of_the_spec(world: Any) -> None:
    selector = {"matchLabels": {"a": "b"}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [CONTAINER]}}
    made = world.create(
        "deployments", {"metadata": {"name": "d"}, "spec": {"selector": selector, "template": template}}
    )
    assert made["metadata"]["generation"] == 1
    kind = world.kind("deployments")

    def label(body: Object) -> None:
        body["metadata"]["labels"] = {"x": "y"}

    def scale(body: Object) -> None:
        body["spec"]["replicas"] = 3

    assert world.objects.change(kind, "default", "d", label).stored.object["metadata"]["generation"] == 1
    assert world.objects.change(kind, "default", "d", scale).stored.object["metadata"]["generation"] == 2
    other = {"selector": {"matchLabels": {"a": "c"}}}
    with pytest.raises(StatusError, match="selector"):
        world.objects.change(kind, "default", "d", lambda body: {**body, "spec": {**body["spec"], **other}})


def test_status_and_spec_are_written_apart(world: Any) -> None:
    world.create("pods", pod())
    kind, body = world.kind("pods"), world.get("pods", "p")
    body["status"]["phase"] = "Running"
    assert (
        world.objects.update(kind, "default", "p", dict(body)).stored.object["status"]["phase"] == "Pending"
    )
    assert (
        world.objects.update(kind, "default", "p", body, subresource="status").stored.object["status"][
            "phase"
        ]
        == "Running"
    )


def test_names_are_made(world: Any) -> None:
    names = {
        world.create("configmaps", {"metadata": {"generateName": "c-"}})["metadata"]["name"]
        for _ in range(20)
    }
    assert len(names) == 20 and all(name.startswith("c-") and len(name) == 7 for name in names)


def test_nothing_is_made_where_there_is_no_namespace(world: Any) -> None:
    with pytest.raises(StatusError) as caught:
        world.create("configmaps", {"metadata": {"name": "c"}}, "nowhere")
    assert caught.value.code == 404


def test_a_dry_run_stores_nothing(world: Any) -> None:
    revision = world.store.revision
    kind = world.kind("configmaps")
    world.objects.create(kind, "default", {"metadata": {"name": "c"}}, Options("t", dry_run=True))
    assert world.store.revision == revision and not world.has("configmaps", "c")
    world.create("configmaps", {"metadata": {"name": "c"}})
    world.objects.delete(kind, "default", "c", DeleteOptions(dry_run=True))
    assert world.has("configmaps", "c")


def test_finalizers_hold_an_object(world: Any) -> None:
    world.create("configmaps", {"metadata": {"name": "c", "finalizers": ["example.com/a"]}})
    kind = world.kind("configmaps")
    world.objects.delete(kind, "default", "c")
    held = world.get("configmaps", "c")
    assert held["metadata"]["deletionTimestamp"]
    held["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    with pytest.raises(StatusError, match="no new finalizers"):
        world.objects.update(kind, "default", "c", held)
    held["metadata"]["finalizers"] = []
    world.objects.update(kind, "default", "c", held)
    assert not world.has("configmaps", "c")


def test_pods_go_when_their_node_says_so(world: Any) -> None:
    world.create("pods", pod())
    kind = world.kind("pods")
    world.objects.delete(kind, "default", "p")
    assert not world.has("pods", "p")  # nothing ran it yet
    world.create("pods", pod(nodeName="n1", terminationGracePeriodSeconds=7))
    world.objects.delete(kind, "default", "p")
    assert world.get("pods", "p")["metadata"]["deletionGracePeriodSeconds"] == 7
    world.objects.delete(kind, "default", "p", DeleteOptions(grace=3))
    assert world.get("pods", "p")["metadata"]["deletionGracePeriodSeconds"] == 3
    world.objects.delete(kind, "default", "p", DeleteOptions(grace=0))
    assert not world.has("pods", "p")


def test_preconditions(world: Any) -> None:
    world.create("configmaps", {"metadata": {"name": "c"}})
    for options in (DeleteOptions(uid="another"), DeleteOptions(revision="1")):
        with pytest.raises(StatusError) as caught:
            world.objects.delete(world.kind("configmaps"), "default", "c", options)
        assert caught.value.code == 409


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("100m", 0.1),
        ("1.5", 1.5),
        ("2Ki", 2048),
        ("1Gi", 2**30),
        ("3k", 3000),
        ("1e3", 1000),
        ("5E", 5e18),
    ],
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "x", "1x", "1.2.3", "0x10", "1 Gi", "--1"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError):
        quantity(text)


def policy(**rule: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"endpointSelector": {}, **rule}}


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (
            {"ingress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "XTP"}]}]}]},
            "spec.ingress[0].toPorts[0].ports[0].protocol",
        ),
        (
            {"ingress": [{"toPorts": [{"ports": [{"port": "bad port"}]}]}]},
            "spec.ingress[0].toPorts[0].ports[0].port",
        ),
        ({"ingress": [{"fromEndpoints": {}}]}, "spec.ingress[0].fromEndpoints"),
        ({"egress": [{"toPorts": [{"ports": [{"port": "1"}] * 41}]}]}, "spec.egress[0].toPorts[0].ports"),
        ({"nodeSelector": {}, "ingress": [{}]}, "spec"),
        ({}, "spec"),
    ],
)
def test_cilium_policies_name_what_is_wrong(world: Any, rule: Object, path: str) -> None:
    assert path in places(refused(world, "ciliumnetworkpolicies", policy(**rule)))


def test_network_policies(world: Any) -> None:
    made = world.create("networkpolicies", {"metadata": {"name": "n"}, "spec": {"egress": [{}]}})
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}}
    wrong = {
        "podSelector": {},
        "ingress": [{"from": [block, {}], "ports": [{"port": "http", "endPort": 90}]}],
    }
    error = refused(world, "networkpolicies", {"metadata": {"name": "m"}, "spec": wrong})
    assert set(places(error)) >= {
        "spec.ingress[0].from[0].ipBlock.except[0]",
        "spec.ingress[0].from[1]",
        "spec.ingress[0].ports[0].endPort",
    }


def test_secrets_and_immutable_configuration(world: Any) -> None:
    made = world.create("secrets", {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg=="}, "Opaque", False)
    world.create("configmaps", {"metadata": {"name": "c"}, "immutable": True, "data": {"a": "1"}})
    with pytest.raises(StatusError, match="immutable"):
        world.objects.change(world.kind("configmaps"), "default", "c", lambda body: {**body, "data": {}})


def test_columns_of_definitions_must_be_readable(world: Any) -> None:
    names = {"plural": "widgets", "kind": "Widget"}
    columns = [
        {"name": name, "type": "string", "jsonPath": path}
        for name, path in (("A", ".spec.a"), ("B", ".spec..b"), ("C", ".spec.c[?(@.d=='e')].f"))
    ]
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
        "additionalPrinterColumns": columns,
    }
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    definition = {"metadata": {"name": "widgets.example.com"}, "spec": spec}
    error = refused(world, "customresourcedefinitions", definition)
    assert places(error) == ["spec.versions[0].additionalPrinterColumns[1].jsonPath"]
    columns[1]["jsonPath"] = ".spec.b"
    world.create("customresourcedefinitions", definition)


def test_definitions_must_be_structural(world: Any) -> None:
    names = {"plural": "widgets", "kind": "Widget"}
    schema = {"type": "object", "properties": {"spec": {"properties": {"x": {"type": "array"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    error = refused(
        world, "customresourcedefinitions", {"metadata": {"name": "widgets.example.com"}, "spec": spec}
    )
    where = "spec.versions[0].schema.openAPIV3Schema.properties[spec]"
    assert set(places(error)) >= {f"{where}.type", f"{where}.properties[x].items"}
    spec["names"] = {"plural": "ciliumnodes", "kind": "CiliumNode"}
    spec["group"] = "cilium.io"
    version["schema"] = {"openAPIV3Schema": {"type": "object"}}
    error = refused(
        world, "customresourcedefinitions", {"metadata": {"name": "ciliumnodes.cilium.io"}, "spec": spec}
    )
    assert error.code == 409
