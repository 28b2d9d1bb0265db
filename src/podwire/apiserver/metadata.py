"""metadata: names, labels, annotations, owners; what of them the server keeps. Pure.

What it fills in is in `stamps`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from podwire.apiserver.status import FieldError, required

Object = dict[str, Any]

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_LABEL_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_NAME = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_PATH_SEGMENT = re.compile(r"^(?!\.{1,2}$)[^/%\x00-\x1f]+$")
_TEXTS = ("name", "generateName", "namespace", "uid", "resourceVersion", "creationTimestamp", "selfLink")

_OF_LABEL = {"namespaces"}
_OF_LABEL_1035 = {"services"}
_OF_PATH = {"clusterroles", "roles"}

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'example.com')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character (e.g. 'my-name')"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name')"
)


def keep(metadata: Object, old: Object) -> None:
    """An update does not change what the server set."""
    for name in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "generation",
        "selfLink",
    ):
        if name in old:
            metadata[name] = old[name]
        else:
            metadata.pop(name, None)


def shape(metadata: Any) -> Iterator[FieldError]:
    """Wrong types in metadata; what passes is safe to work with. null is the same as nothing."""
    if not isinstance(metadata, dict):
        yield FieldError("metadata", "must be an object", value=metadata)
        return
    given = {name: value for name, value in metadata.items() if value is not None}
    for name in _TEXTS:
        if not isinstance(given.get(name, ""), str):
            yield FieldError(f"metadata.{name}", "must be a string", value=given[name])
    for name in ("labels", "annotations"):
        pairs = given.get(name, {})
        if not isinstance(pairs, dict):
            yield FieldError(f"metadata.{name}", "must be a map of strings", value=pairs)
            continue
        for key, value in pairs.items():
            if not isinstance(value, str):
                yield FieldError(f"metadata.{name}.{key}", "must be a string", value=value)
    finalizers = given.get("finalizers", [])
    if not isinstance(finalizers, list) or any(not isinstance(one, str) for one in finalizers):
        yield FieldError("metadata.finalizers", "must be a list of strings", value=finalizers)
    yield from _owners_shape(given.get("ownerReferences", []))
    managed = given.get("managedFields", [])
    if not isinstance(managed, list) or any(not isinstance(one, dict) for one in managed):
        yield FieldError("metadata.managedFields", "must be a list of objects", value=managed)


def _owners_shape(owners: Any) -> Iterator[FieldError]:
    if not isinstance(owners, list):
        yield FieldError("metadata.ownerReferences", "must be a list", value=owners)
        return
    controllers = 0
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        if not isinstance(owner, dict):
            yield FieldError(path, "must be an object", value=owner)
            continue
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                yield required(f"{path}.{name}", "must not be empty")
            elif not isinstance(owner[name], str):
                yield FieldError(f"{path}.{name}", "must be a string", value=owner[name])
        controllers += owner.get("controller") is True
    if controllers > 1:
        yield FieldError(
            "metadata.ownerReferences", "only one reference can have controller set to true", value=""
        )


def valid(metadata: Object, plural: str) -> Iterator[FieldError]:
    """Names, labels and annotations by Kubernetes' rules. The shape was checked before."""
    name = metadata.get("name") or ""
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif problem := name_problem(plural, name):
        yield FieldError("metadata.name", problem, value=name)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _label("metadata.labels", key, value)
    total = 0
    for key, value in (metadata.get("annotations") or {}).items():
        total += len(key) + len(value)
        if problem := qualified(key.lower()):
            yield FieldError("metadata.annotations", problem, value=key)
    if total > 256 * 1024:
        yield FieldError(
            "metadata.annotations", "must have at most 262144 bytes", reason="FieldValueTooLong", value=""
        )
    for index, one in enumerate(metadata.get("finalizers") or []):
        if problem := qualified(one):
            yield FieldError(f"metadata.finalizers[{index}]", problem, value=one)


def labels_valid(path: str, pairs: Any) -> Iterator[FieldError]:
    for key, value in (pairs or {}).items():
        yield from _label(path, key, value)


def _label(path: str, key: str, value: str) -> Iterator[FieldError]:
    if problem := qualified(key):
        yield FieldError(path, problem, value=key)
    if len(value) > 63 or not _VALUE.fullmatch(value):
        rule = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character, at most 63 of them"
        )
        yield FieldError(path, rule, value=value)


def qualified(key: str) -> str | None:
    """What is wrong with ``prefix/name``, or None."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        return f"prefix part {_SUBDOMAIN_RULE}"
    if not name or len(name) > 63 or not _NAME.fullmatch(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
            "an alphanumeric character, at most 63 of them (e.g. 'MyName' or 'example.com/MyName')"
        )
    return None


def name_problem(plural: str, name: str) -> str | None:
    """What is wrong with the name of an object of this resource, or None."""
    if plural in _OF_PATH:
        return None if _PATH_SEGMENT.fullmatch(name) else "may not contain '/' or '%'"
    if plural in _OF_LABEL:
        return None if len(name) <= 63 and _LABEL.fullmatch(name) else _LABEL_RULE
    if plural in _OF_LABEL_1035:
        return None if len(name) <= 63 and _LABEL_1035.fullmatch(name) else _LABEL_1035_RULE
    return None if len(name) <= 253 and _SUBDOMAIN.fullmatch(name) else _SUBDOMAIN_RULE


def is_label(name: str) -> bool:
    """RFC 1123 label."""
    return len(name) <= 63 and bool(_LABEL.fullmatch(name))


def is_subdomain(name: str) -> bool:
    """RFC 1123 subdomain."""
    return len(name) <= 253 and bool(_SUBDOMAIN.fullmatch(name))


def is_resolvable(name: str) -> bool:
    """A subdomain that can be asked for: DNS has 63 bytes for a label, which names of objects may pass."""
    return is_subdomain(name) and all(len(label) <= 63 for label in name.split("."))


def controller_of(body: Object) -> Object | None:
    """The owner reference that controls `body`."""
    owners: list[Object] = body["metadata"].get("ownerReferences") or []
    return next((one for one in owners if one.get("controller")), None)


def owner_reference(owner: Object) -> Object:
    """A controlling, blocking reference to `owner`."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
