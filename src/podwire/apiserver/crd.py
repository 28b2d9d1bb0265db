"""CustomResourceDefinitions: from a definition to the kinds it makes the API serve. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.apiserver.kinds import Kind, Strategy, Subresource
from podwire.apiserver.status import FieldError
from podwire.apiserver.strategies.policies import PARSERS, enforceable

Object = dict[str, Any]
RESOURCE = "customresourcedefinitions.apiextensions.k8s.io"
_STATUS_VERBS = ("get", "patch", "update")


class Custom(Strategy):
    """Instances: generation counts changes of everything but metadata and status."""

    generation = True


class Policies(Custom):
    """Instances of Cilium's policies: only what agents can enforce."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def validate(self, body: Object, old: Object | None) -> Iterable[FieldError]:
        return enforceable(self._kind, body)


def kinds(definition: Object) -> list[Kind]:
    """What `definition` serves: one kind a version, all stored as one resource."""
    spec = definition["spec"]
    names, group = spec["names"], spec["group"]
    stored = next(one["name"] for one in spec["versions"] if one.get("storage"))
    served = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        served.append(
            Kind(
                group=group,
                version=version["name"],
                plural=names["plural"],
                kind=names["kind"],
                singular=names.get("singular") or names["kind"].lower(),
                short=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                namespaced=spec["scope"] == "Namespaced",
                subresources=_subresources(names["kind"], version.get("subresources") or {}),
                fields={"metadata.name": "", "metadata.namespace": ""},
                storage="" if version["name"] == stored else f"{names['plural']}.{group}",
                strategy=_strategy(group, names["kind"]),
                schema=(version.get("schema") or {}).get("openAPIV3Schema"),
                columns=tuple(version.get("additionalPrinterColumns") or ()),
                custom=True,
            )
        )
    return served


def _strategy(group: str, kind: str) -> Strategy:
    return Policies(kind) if group == "cilium.io" and kind in PARSERS else Custom()


def _subresources(kind: str, given: Object) -> tuple[Subresource, ...]:
    found = []
    if given.get("status") is not None:
        found.append(Subresource("status", kind, _STATUS_VERBS))
    if given.get("scale") is not None:
        found.append(Subresource("scale", "Scale", _STATUS_VERBS, "autoscaling", "v1"))
    return tuple(found)


def accepted(definition: Object, moment: str) -> Object:
    """The status of a definition that is served from `moment` on."""
    spec = definition["spec"]
    conditions = [
        {"type": "NamesAccepted", "reason": "NoConflicts", "message": "no conflicts found"},
        {
            "type": "Established",
            "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        },
    ]
    stored = [one["name"] for one in spec["versions"] if one.get("storage")]
    return {
        "conditions": [{**one, "status": "True", "lastTransitionTime": moment} for one in conditions],
        "acceptedNames": spec["names"],
        "storedVersions": stored,
    }
