"""Server-side apply and managedFields: who owns what, conflicts, and what goes when it is said no more."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.content import APPLY_PATCH, MERGE_PATCH
from podwire.apiserver.options import Options
from podwire.apiserver.patch import fields
from podwire.apiserver.patch.managed import read
from podwire.apiserver.status import StatusError

Object = dict[str, Any]


def owners(body: Object) -> dict[str, set[str]]:
    """Manager → paths, for people."""
    found: dict[str, set[str]] = {}
    for owner, (paths, _) in read(body["metadata"].get("managedFields"), "").items():
        found.setdefault(owner.manager, set()).update(fields.shown(path) for path in paths)
    return found


def apply(world: Any, manager: str, data: Object, *, force: bool = False, **meta: Any) -> Object:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **meta}, "data": data}
    return world.patch("configmaps", "c", APPLY_PATCH, body, Options(manager, force=force))


def deploy(world: Any, manager: str, *, force: bool = False, **spec: Any) -> Object:
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
    return world.patch("deployments", "d", APPLY_PATCH, body, Options(manager, force=force))


def template(*containers: Object) -> Object:
    return {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": list(containers)}}


SELECTOR = {"matchLabels": {"app": "d"}}
WEB = {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]}


def test_an_apply_creates_and_owns(world: Any) -> None:
    made = apply(world, "anna", {"a": "1"})
    assert owners(made) == {"anna": {".data.a"}}
    assert made["metadata"]["uid"]


def test_two_managers_share_an_object(world: Any) -> None:
    apply(world, "anna", {"a": "1"})
    both = apply(world, "ben", {"b": "2"})
    assert both["data"] == {"a": "1", "b": "2"}
    assert owners(both) == {"anna": {".data.a"}, "ben": {".data.b"}}


def test_what_is_said_no_more_goes_if_nobody_else_owns_it(world: Any) -> None:
    apply(world, "anna", {"a": "1", "shared": "x"})
    apply(world, "ben", {"shared": "x"})
    left = apply(world, "anna", {})
    assert left["data"] == {"shared": "x"}
    assert owners(left) == {"ben": {".data.shared"}} or owners(left)["ben"] == {".data.shared"}


def test_a_conflict_names_manager_and_field(world: Any) -> None:
    apply(world, "anna", {"a": "1"})
    with pytest.raises(StatusError) as caught:
        apply(world, "ben", {"a": "2"})
    assert caught.value.code == 409
    assert str(caught.value) == 'Apply failed with 1 conflict: conflict with "anna": .data.a'
    assert caught.value.details == {
        "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "anna"', "field": ".data.a"}]
    }
    assert world.get("configmaps", "c")["data"] == {"a": "1"}


def test_force_takes_the_field(world: Any) -> None:
    apply(world, "anna", {"a": "1"})
    forced = apply(world, "ben", {"a": "2"}, force=True)
    assert forced["data"] == {"a": "2"}
    assert owners(forced) == {"ben": {".data.a"}}


def test_equal_values_are_shared_without_conflict(world: Any) -> None:
    apply(world, "anna", {"a": "1"})
    shared = apply(world, "ben", {"a": "1"})
    assert owners(shared) == {"anna": {".data.a"}, "ben": {".data.a"}}


def test_an_update_takes_fields_it_changes(world: Any) -> None:
    apply(world, "anna", {"a": "1", "b": "1"})
    changed = world.patch("configmaps", "c", MERGE_PATCH, {"data": {"a": "9"}}, Options("carl"))
    assert owners(changed) == {"anna": {".data.b"}, "carl": {".data.a"}}
    with pytest.raises(StatusError, match=r'conflict with "carl" using v1: \.data\.a'):
        apply(world, "anna", {"a": "1", "b": "1"})


def test_keyed_lists_belong_by_item(world: Any) -> None:
    deploy(world, "anna", selector=SELECTOR, template=template(WEB))
    both = deploy(world, "mesh", template={"spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}})
    assert [one["name"] for one in both["spec"]["template"]["spec"]["containers"]] == ["web", "proxy"]
    changed = deploy(world, "anna", selector=SELECTOR, template=template({**WEB, "image": "web:2"}))
    containers = changed["spec"]["template"]["spec"]["containers"]
    assert [(one["name"], one["image"]) for one in containers] == [("web", "web:2"), ("proxy", "proxy:1")]
    gone = deploy(world, "mesh", template={"spec": {}})
    assert [one["name"] for one in gone["spec"]["template"]["spec"]["containers"]] == ["web"]


def test_ports_are_keyed_with_their_default(world: Any) -> None:
    made = deploy(world, "anna", selector=SELECTOR, template=template(WEB))
    mine = owners(made)["anna"]
    where = '.spec.template.spec.containers[name="web"].ports[containerPort=80,protocol="TCP"]'
    assert where in mine and f"{where}.containerPort" in mine
    again = deploy(world, "anna", selector=SELECTOR, template=template(WEB))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_applying_again_changes_nothing(world: Any) -> None:
    first = apply(world, "anna", {"a": "1"}, labels={"x": "y"})
    again = apply(world, "anna", {"a": "1"}, labels={"x": "y"})
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_status_is_owned_through_its_subresource(world: Any) -> None:
    deploy(world, "anna", selector=SELECTOR, template=template(WEB))
    kind = world.kind("deployments")
    body = world.get("deployments", "d")
    body["status"] = {"replicas": 3}
    changed = world.objects.update(kind, "default", "d", body, Options("controller"), "status").stored.object
    entry = next(one for one in changed["metadata"]["managedFields"] if one["manager"] == "controller")
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:replicas": {}}})


def test_what_an_apply_must_not_say(world: Any) -> None:
    with pytest.raises(StatusError, match="managedFields must be nil"):
        apply(world, "anna", {}, managedFields=[{"manager": "x"}])
    with pytest.raises(StatusError, match="fieldManager is required"):
        apply(world, "", {})


def test_fields_are_written_and_read_back() -> None:
    paths = {
        ("f:spec", "f:replicas"),
        ("f:spec", 'k:{"name":"a"}'),
        ("f:spec", 'k:{"name":"a"}', "f:image"),
        ("f:metadata", "f:finalizers", 'v:"x"'),
    }
    tree = fields.encode(paths)
    assert tree["f:spec"]['k:{"name":"a"}'] == {".": {}, "f:image": {}}
    assert fields.decode(tree) == paths
    assert fields.decode("nonsense") == set()
