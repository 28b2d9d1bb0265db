"""Whether a pod may run on a node: selectors, affinity, taints, ports, spreading. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from podwire.apiserver.selectors import match
from podwire.controllermanager import podstate

Object = dict[str, Any]
_ALLOW_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


class World:
    """What placing looks at: nodes, where pods are, labels of namespaces, and pods with anti-affinity."""

    def __init__(
        self,
        nodes: list[Object],
        pods_on: Callable[[str], list[Object]],
        spaces: Callable[[str], Object],
        guards: list[Object],
    ) -> None:
        self.nodes = nodes
        self.pods_on = pods_on
        self.labels_of = spaces
        self.guards = guards
        self.labels = {node["metadata"]["name"]: node["metadata"].get("labels") or {} for node in nodes}


def refusal(pod: Object, node: Object, world: World) -> str | None:
    """Why `pod` cannot run on `node`, in kube-scheduler's words, or None."""
    spec = pod["spec"]
    ready = podstate.condition(node, "Ready")
    labels = node["metadata"].get("labels") or {}
    if ready is None or ready["status"] != "True":
        return "node(s) were not ready"
    if node.get("spec", {}).get("unschedulable") and not _tolerates(
        pod, {"key": _ALLOW_UNSCHEDULABLE, "effect": "NoSchedule"}
    ):
        return "node(s) were unschedulable"
    if taint := untolerated(pod, node, ("NoSchedule", "NoExecute")):
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not selected(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    wanted = _ports(pod)
    if wanted and wanted & {port for one in world.pods_on(node["metadata"]["name"]) for port in _ports(one)}:
        return "node(s) didn't have free ports for the requested pod ports"
    affinity = spec.get("affinity") or {}
    if not _near(pod, labels, affinity.get("podAffinity") or {}, world):
        return "node(s) didn't match pod affinity rules"
    if _beside(pod, labels, affinity.get("podAntiAffinity") or {}, world) or _unwanted(pod, labels, world):
        return "node(s) didn't match pod anti-affinity rules"
    if not _spreads(pod, labels, world):
        return "node(s) didn't match pod topology spread constraints"
    return None


def selected(pod: Object, node: Object) -> bool:
    """nodeSelector and required node affinity."""
    spec, labels = pod["spec"], node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(_term(term, labels, fields) for term in required.get("nodeSelectorTerms") or [])


def _term(term: Object, labels: dict[str, str], fields: dict[str, str]) -> bool:
    on_labels, on_fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not on_labels and not on_fields:
        return False
    return match({"matchExpressions": on_labels}, labels) and match({"matchExpressions": on_fields}, fields)


def untolerated(pod: Object, node: Object, effects: Iterable[str]) -> Object | None:
    """The first taint with one of the effects that `pod` does not tolerate."""
    taints: list[Object] = node.get("spec", {}).get("taints") or []
    return next((one for one in taints if one["effect"] in effects and not _tolerates(pod, one)), None)


def toleration(pod: Object, taint: Object) -> Object | None:
    """The toleration by which `pod` can live with `taint`."""
    for one in pod["spec"].get("tolerations") or []:
        if one.get("effect") and one["effect"] != taint["effect"]:
            continue
        exists = one.get("operator") == "Exists"
        if not one.get("key") and exists:
            return dict(one)
        if one.get("key") == taint["key"] and (exists or one.get("value", "") == taint.get("value", "")):
            return dict(one)
    return None


def _tolerates(pod: Object, taint: Object) -> bool:
    return toleration(pod, taint) is not None


def _ports(pod: Object) -> set[tuple[int, str, str]]:
    return {
        (port["hostPort"], port.get("protocol", "TCP"), port.get("hostIP", ""))
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
        if port.get("hostPort")
    }


def _terms(rules: Object) -> list[Object]:
    found: list[Object] = rules.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    return found


def _matches(term: Object, home: str, other: Object, world: World) -> bool:
    """Whether `other` is one of the pods a term of a pod in namespace `home` is about."""
    namespace = other["metadata"]["namespace"]
    named = term.get("namespaces") or []
    by_label = term.get("namespaceSelector")
    if by_label is None and not named:
        named = [home]
    if namespace not in named and not (by_label is not None and match(by_label, world.labels_of(namespace))):
        return False
    return match(term.get("labelSelector"), other["metadata"].get("labels") or {})


def _domain(key: str, value: str, world: World) -> list[Object]:
    """Pods on nodes where the label `key` has this value."""
    found = []
    for node in world.nodes:
        if (node["metadata"].get("labels") or {}).get(key) == value:
            found += world.pods_on(node["metadata"]["name"])
    return found


def _near(pod: Object, labels: dict[str, str], rules: Object, world: World) -> bool:
    home = pod["metadata"]["namespace"]
    for term in _terms(rules):
        value = labels.get(term["topologyKey"])
        if value is None:
            return False
        if any(_matches(term, home, one, world) for one in _domain(term["topologyKey"], value, world)):
            continue
        anywhere = (one for node in world.nodes for one in world.pods_on(node["metadata"]["name"]))
        first = not any(_matches(term, home, one, world) for one in anywhere)
        if not (first and _matches(term, home, pod, world)):
            return False
    return True


def _beside(pod: Object, labels: dict[str, str], rules: Object, world: World) -> bool:
    home = pod["metadata"]["namespace"]
    return any(
        _matches(term, home, one, world)
        for term in _terms(rules)
        if (value := labels.get(term["topologyKey"])) is not None
        for one in _domain(term["topologyKey"], value, world)
    )


def _unwanted(pod: Object, labels: dict[str, str], world: World) -> bool:
    """Whether a pod that is there keeps this one away."""
    for other in world.guards:
        there = world.labels.get(other["spec"].get("nodeName", ""), {})
        for term in _terms(other["spec"]["affinity"]["podAntiAffinity"]):
            key = term["topologyKey"]
            same = key in labels and labels[key] == there.get(key)
            if same and _matches(term, other["metadata"]["namespace"], pod, world):
                return True
    return False


def _spreads(pod: Object, labels: dict[str, str], world: World) -> bool:
    home = pod["metadata"]["namespace"]
    for rule in pod["spec"].get("topologySpreadConstraints") or []:
        if rule["whenUnsatisfiable"] != "DoNotSchedule":
            continue
        key = rule["topologyKey"]
        if key not in labels:
            return False
        counts: dict[str, int] = {}
        for node in world.nodes:
            value = (node["metadata"].get("labels") or {}).get(key)
            if value is None or not selected(pod, node):
                continue
            mine = [
                one
                for one in world.pods_on(node["metadata"]["name"])
                if one["metadata"]["namespace"] == home
                and match(rule.get("labelSelector"), one["metadata"].get("labels") or {})
            ]
            counts[value] = counts.get(value, 0) + len(mine)
        if counts and counts.get(labels[key], 0) + 1 - min(counts.values()) > rule["maxSkew"]:
            return False
    return True
