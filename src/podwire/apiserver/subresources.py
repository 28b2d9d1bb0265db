"""Subresources that are more than a part of the object, and the reviews: scale, binding, eviction, …"""

from __future__ import annotations

from typing import Any

from podwire.apiserver import patching
from podwire.apiserver.auth import Authenticator, User
from podwire.apiserver.columns import selector_text
from podwire.apiserver.kinds import Kind
from podwire.apiserver.objects import Objects
from podwire.apiserver.options import DeleteOptions, Options
from podwire.apiserver.status import bad_request, changed_meanwhile, conflict
from podwire.base import moments

Object = dict[str, Any]
_HOUR = 3600


def scale_of(body: Object) -> Object:
    """autoscaling/v1 Scale of a workload."""
    meta = {
        key: body["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in body["metadata"]
    }
    selector = selector_text(body["spec"].get("selector"))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": body["spec"].get("replicas", 1)},
        "status": {
            "replicas": body.get("status", {}).get("replicas", 0),
            "selector": "" if selector == "<none>" else selector,
        },
    }


def write_scale(
    objects: Objects, kind: Kind, namespace: str, name: str, form: str, sent: Any, options: Options
) -> Object:
    """PUT or PATCH of a scale; `form` is empty for a PUT."""

    def edit(body: Object) -> Object:
        scale = scale_of(body)
        wanted = patching.editing(_SCALE, form, sent)(scale) if form else sent
        spec = wanted.get("spec") if isinstance(wanted, dict) else None
        replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
        if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas < 1 << 31:
            raise bad_request("spec.replicas must be a whole number, 0 or more")
        given = wanted.get("metadata") or {}
        revision = given.get("resourceVersion") if isinstance(given, dict) else None
        if revision not in (None, "", body["metadata"]["resourceVersion"]):
            raise changed_meanwhile(kind.plural, kind.group, name)
        body["spec"]["replicas"] = replicas
        return body

    return scale_of(objects.change(kind, namespace, name, edit, options).stored.object)


_SCALE = Kind(group="autoscaling", version="v1", plural="scales", kind="Scale", namespaced=True)


def bind(objects: Objects, namespace: str, name: str, binding: Any) -> None:
    """Place a pod on a node, once."""
    target = (binding or {}).get("target") if isinstance(binding, dict) else None
    node = target.get("name") if isinstance(target, dict) else None
    if not isinstance(node, str) or not node:
        raise bad_request("target.name of the binding must name a node")

    def edit(pod: Object) -> None:
        if pod["metadata"].get("deletionTimestamp"):
            raise conflict("pods", "", name, f"pod {name} is being deleted, cannot be assigned to a host")
        if pod["spec"].get("nodeName"):
            raise conflict(
                "pods", "", name, f"pod {name} is already assigned to node {pod['spec']['nodeName']}"
            )
        pod["spec"]["nodeName"] = node

    objects.change(objects.kind("pods"), namespace, name, edit)
    objects.change(objects.kind("pods"), namespace, name, edit_status, subresource="status")


def edit_status(pod: Object) -> None:
    """Say in the pod's status that it is placed."""
    pod["status"]["conditions"] = scheduled(pod)


def scheduled(pod: Object) -> list[Object]:
    """The pod's conditions with PodScheduled true."""
    others = [one for one in pod["status"].get("conditions") or [] if one["type"] != "PodScheduled"]
    mine = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": moments.now(),
    }
    return [mine, *others]


def evict(objects: Objects, namespace: str, name: str, eviction: Any) -> Object:
    """Delete a pod as `kubectl drain` asks for it."""
    given = (eviction or {}).get("deleteOptions") if isinstance(eviction, dict) else None
    grace = given.get("gracePeriodSeconds") if isinstance(given, dict) else None
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("deleteOptions.gracePeriodSeconds must be a whole number")
    objects.delete(objects.kind("pods"), namespace, name, DeleteOptions(grace))
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def finalize(objects: Objects, name: str, sent: Any) -> Object:
    """Set a namespace's finalizers; without any and being deleted it goes."""
    spec = sent.get("spec") if isinstance(sent, dict) else None
    wanted = spec.get("finalizers") or [] if isinstance(spec, dict) else []
    if not isinstance(wanted, list) or any(not isinstance(one, str) for one in wanted):
        raise bad_request("spec.finalizers must be a list of strings")
    return objects.finalize_namespace(name, wanted)


def token(objects: Objects, authenticator: Authenticator, namespace: str, name: str, sent: Any) -> Object:
    """A token for a service account (kubectl create token)."""
    account = objects.get(objects.kind("serviceaccounts"), namespace, name).object
    spec = (sent or {}).get("spec") or {} if isinstance(sent, dict) else {}
    seconds = spec.get("expirationSeconds") or _HOUR if isinstance(spec, dict) else _HOUR
    audiences = spec.get("audiences") or [] if isinstance(spec, dict) else []
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 600 <= seconds <= 1 << 32:
        raise bad_request("spec.expirationSeconds must be at least 600")
    if not isinstance(audiences, list) or any(not isinstance(one, str) for one in audiences):
        raise bad_request("spec.audiences must be a list of strings")
    text, ends = authenticator.token(namespace, name, account["metadata"]["uid"], seconds, audiences)
    until = moments.at(ends)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": moments.now()},
        "spec": {"audiences": audiences, "expirationSeconds": seconds},
        "status": {"token": text, "expirationTimestamp": until},
    }


def review(kind: Kind, user: User, authenticator: Authenticator, sent: Any) -> Object:
    """Who am I, may I, whose token is this. Whoever is known may do everything."""
    body = sent if isinstance(sent, dict) else {}
    spec: Object = body["spec"] if isinstance(body.get("spec"), dict) else {}
    answer: Object = {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {"creationTimestamp": None},
    }
    match kind.plural:
        case "selfsubjectreviews":
            return {**answer, "status": {"userInfo": user.info()}}
        case "tokenreviews":
            known = authenticator.by_token(str(spec.get("token", "")))
            status = {"authenticated": True, "user": known.info()} if known else {"authenticated": False}
            return {**answer, "spec": spec, "status": status}
    status = {"allowed": True, "reason": "every authenticated client may do everything in this embedded API"}
    return {**answer, "spec": spec, "status": status}
