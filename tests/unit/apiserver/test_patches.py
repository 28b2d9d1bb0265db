"""JSON, merge and strategic merge patches, by the cases of their specifications."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.builtin import registry
from podwire.apiserver.patch import fields, jsonpatch, merge, strategic
from podwire.apiserver.status import StatusError

Object = dict[str, Any]

# RFC 7386, appendix A
MERGES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), MERGES)
def test_merge(target: Any, patch: Any, expected: Any) -> None:
    assert merge.merge(target, patch) == expected


# RFC 6902, appendix A
OPERATIONS: list[tuple[Any, list[Object], Any]] = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
    ({"foo": ["a", "c"]}, [{"op": "add", "path": "/foo/1", "value": "b"}], {"foo": ["a", "b", "c"]}),
    ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": ["b"]}], {"foo": ["a", ["b"]]}),
    ({"baz": 1, "foo": 2}, [{"op": "remove", "path": "/baz"}], {"foo": 2}),
    ({"foo": [1, 2, 3]}, [{"op": "remove", "path": "/foo/1"}], {"foo": [1, 3]}),
    ({"baz": 1}, [{"op": "replace", "path": "/baz", "value": 2}], {"baz": 2}),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    ({"foo": [1, 2, 3, 4]}, [{"op": "move", "from": "/foo/1", "path": "/foo/3"}], {"foo": [1, 3, 4, 2]}),
    ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"baz": "qux"}, [{"op": "add", "path": "/m~1n", "value": 1}], {"baz": "qux", "m/n": 1}),
    ({"a": None}, [{"op": "test", "path": "/a", "value": None}], {"a": None}),
]


@pytest.mark.parametrize(("target", "operations", "expected"), OPERATIONS)
def test_json_patch(target: Any, operations: list[Object], expected: Any) -> None:
    assert jsonpatch.apply(target, operations) == expected


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ({"op": "add"}, 400),
        ([{"op": "add", "path": "/a"}], 400),
        ([{"op": "fly", "path": "/a"}], 400),
        ([{"op": "add", "path": "a", "value": 1}], 400),
        ([{"op": "add", "path": "/no/thing", "value": 1}], 422),
        ([{"op": "remove", "path": "/list/5"}], 422),
        ([{"op": "remove", "path": "/list/01234567890"}], 422),
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "move", "from": "/a", "path": "/a/b"}], 422),
        ([{"op": "copy", "from": "/big", "path": f"/big{i}"} for i in range(40)], 413),
    ],
)
def test_json_patch_that_does_not_fit(operations: Any, code: int) -> None:
    target = {"a": 1, "list": [1], "big": "x" * 100_000}
    with pytest.raises(StatusError) as caught:
        jsonpatch.apply(target, operations)
    assert caught.value.code == code


def deployment(*containers: Object, **spec: Any) -> Object:
    return {
        "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": list(containers), **spec}}},
    }


def patched(target: Object, patch: Object) -> Object:
    kind = registry().find("apps", "v1", "deployments")
    assert kind is not None
    result: Object = strategic.merge(fields.schema_of(kind), target, patch)["spec"]["template"]["spec"]
    return result


A, B = {"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}


def test_strategic_lists_are_merged_by_key() -> None:
    assert patched(deployment(A), deployment(B))["containers"] == [A, B]
    changed = patched(deployment(A, B), deployment({"name": "b", "image": "b:2"}))
    assert changed["containers"] == [A, {"name": "b", "image": "b:2"}]


def test_strategic_lists_without_key_are_replaced() -> None:
    target = deployment({**A, "command": ["x", "y"]}, tolerations=[{"key": "one"}])
    changed = patched(target, deployment({"name": "a", "command": ["z"]}, tolerations=[{"key": "two"}]))
    assert changed["containers"][0]["command"] == ["z"]
    assert changed["tolerations"] == [{"key": "two"}]


def test_strategic_directives() -> None:
    gone = patched(deployment(A, B), deployment({"name": "a", "$patch": "delete"}))
    assert gone["containers"] == [B]
    alone = patched(deployment(A), deployment(B, {"$patch": "replace"}))
    assert alone["containers"] == [B]
    whole = patched(
        deployment(A, dnsPolicy="None"),
        {"spec": {"template": {"spec": {"$patch": "replace", "containers": [B]}}}},
    )
    assert whole == {"containers": [B]}
    ordered = patched(
        deployment(A), deployment(B, **{"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})
    )
    assert [one["name"] for one in ordered["containers"]] == ["b", "a"]


def test_strategic_retain_keys() -> None:
    kind = registry().find("apps", "v1", "deployments")
    assert kind is not None
    target = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    result = strategic.merge(fields.schema_of(kind), target, patch)
    assert result == {"spec": {"strategy": {"type": "Recreate"}}}


def test_strategic_primitive_lists() -> None:
    kind = registry().find("", "v1", "pods")
    assert kind is not None
    target = {"metadata": {"finalizers": ["a/1", "a/2"]}}
    added = strategic.merge(fields.schema_of(kind), target, {"metadata": {"finalizers": ["a/3"]}})
    assert added["metadata"]["finalizers"] == ["a/1", "a/2", "a/3"]
    less = strategic.merge(
        fields.schema_of(kind), target, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/1"]}}
    )
    assert less["metadata"]["finalizers"] == ["a/2"]


def test_strategic_item_without_its_key() -> None:
    with pytest.raises(StatusError, match="merge key"):
        patched(deployment(A), deployment({"image": "x"}))
