"""EndpointSlices and Endpoints: which pods are behind a service, and whether they take traffic.

A slice holds one family, one set of ports and at most 100 endpoints; endpoints stay in the slice they
are in, so that a change of one pod changes one slice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.apiserver.metadata import owner_reference
from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Change, Stored
from podwire.controllermanager import podstate
from podwire.controllermanager.loop import Controller, place

Object = dict[str, Any]
Ports = tuple[tuple[str, str, int, str], ...]  # name, protocol, number, application protocol

_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE = "kubernetes.io/service-name"
_BY = "endpointslice.kubernetes.io/managed-by"
_ME = "endpointslice-controller.k8s.io"
_HEADLESS = "service.kubernetes.io/headless"
_ZONE = "topology.kubernetes.io/zone"
_LEGACY_BY = "endpoints.kubernetes.io/managed-by"
_MOST = 100
_LEGACY_MOST = 1000


class EndpointSlices(Controller):
    name = "endpointslice-controller"
    watches = ("services", "pods", _SLICES, "endpoints")

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._mine: dict[tuple[str, str], set[str]] = {}  # service → names of its slices
        for stored in objects.store.list(_SLICES):
            self._learn(stored)

    def start(self) -> Iterable[tuple[str, str]]:
        return [place(one) for one in self.objects.all("services")]

    def keys(self, change: Change) -> Iterable[tuple[str, str]]:
        stored = change.stored
        if change.resource in ("services", "endpoints"):
            return [(stored.namespace, stored.name)]
        if change.resource == _SLICES:
            if change.previous is not None:
                self._forget(change.previous)
            if change.kind != "DELETED":
                self._learn(stored)
                return []
            named = _service_of(stored.object)
            return [(stored.namespace, named)] if named else []
        if change.previous is not None and change.kind == "MODIFIED" and _same(stored, change.previous):
            return ()
        found: dict[tuple[str, str], None] = {}
        for service in self.objects.all("services", stored.namespace):
            selector = service["spec"].get("selector")
            for pod in (stored, change.previous):
                if selector and pod and _selected(selector, pod.object):
                    found[place(service)] = None
        return found

    def reconcile(self, key: tuple[str, str]) -> float | None:
        namespace, name = key
        service = self.objects.find("services", namespace, name)
        known = [self.objects.find(_SLICES, namespace, one) for one in sorted(self._mine.get(key, ()))]
        mine = [one for one in known if one is not None]
        if service is None or service["metadata"].get("deletionTimestamp"):
            for one in mine:
                self._remove(_SLICES, *place(one))
            self._remove_endpoints(namespace, name)
            return None
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName":
            return None
        space = self.objects.find("namespaces", "", namespace)
        if space is None or space["metadata"].get("deletionTimestamp"):
            return None
        pods = [
            pod for pod in self.objects.all("pods", namespace) if _selected(selector, pod) and _counts(pod)
        ]
        for family in service["spec"].get("ipFamilies") or ["IPv4"]:
            self._slices(service, family, pods, [one for one in mine if one["addressType"] == family])
        for stray in mine:
            if stray["addressType"] not in service["spec"].get("ipFamilies", ()):
                self._remove(_SLICES, *place(stray))
        self._endpoints(service, pods)
        return None

    def _learn(self, stored: Stored) -> None:
        service = _service_of(stored.object)
        if service:
            self._mine.setdefault((stored.namespace, service), set()).add(stored.name)

    def _forget(self, stored: Stored) -> None:
        key = (stored.namespace, _service_of(stored.object))
        names = self._mine.get(key, set())
        names.discard(stored.name)
        if not names:
            self._mine.pop(key, None)

    # -- slices

    def _slices(self, service: Object, family: str, pods: list[Object], mine: list[Object]) -> None:
        groups: dict[Ports, dict[str, Object]] = {}
        for pod in pods:
            address = _address(pod, family)
            if address:
                endpoint = self._endpoint(service, pod, address)
                groups.setdefault(_ports(service, pod), {})[pod["metadata"]["uid"]] = endpoint
        if not groups:
            groups[_ports(service, None)] = {}
        left = list(mine)
        for ports, wanted in groups.items():
            have = [one for one in left if _ports_of(one) == ports]
            left = [one for one in left if one not in have]
            self._group(service, family, ports, dict(wanted), have)
        for one in left:
            self._remove(_SLICES, *place(one))

    def _group(
        self, service: Object, family: str, ports: Ports, wanted: dict[str, Object], have: list[Object]
    ) -> None:
        """Endpoints of one set of ports over the slices there are, and new ones."""
        plans: list[tuple[Object | None, list[Object]]] = []
        for one in have:
            kept = []
            for endpoint in one.get("endpoints") or []:
                uid = (endpoint.get("targetRef") or {}).get("uid", "")
                if uid in wanted:
                    kept.append(wanted.pop(uid))
            plans.append((one, kept))
        rest = list(wanted.values())
        for _, kept in plans:
            room = _MOST - len(kept)
            kept += rest[:room]
            rest = rest[room:]
        while rest:
            plans.append((None, rest[:_MOST]))
            rest = rest[_MOST:]
        if not plans:
            plans.append((None, []))
        filled = [plan for plan in plans if plan[1]] or plans[:1]
        for old, endpoints in plans:
            if not any(endpoints is kept for _, kept in filled):
                if old is not None:
                    self._remove(_SLICES, *place(old))
                continue
            self._write(service, family, ports, endpoints, old)

    def _write(
        self, service: Object, family: str, ports: Ports, endpoints: list[Object], old: Object | None
    ) -> None:
        namespace, name = place(service)
        labels = {
            **(service["metadata"].get("labels") or {}),
            _SERVICE: name,
            _BY: _ME,
            **({_HEADLESS: ""} if service["spec"].get("clusterIP") == "None" else {}),
        }
        body: Object = {
            "addressType": family,
            "endpoints": endpoints,
            "ports": [_port_object(one) for one in ports],
        }
        kind = self.objects.kind(_SLICES)
        if old is None:
            meta = {
                "generateName": f"{name}-",
                "labels": labels,
                "ownerReferences": [owner_reference(service)],
            }
            self.objects.create(kind, namespace, {"metadata": meta, **body})
        elif {key: old.get(key) for key in body} != body or old["metadata"].get("labels") != labels:

            def renew(present: Object) -> Object:
                return {**present, **body, "metadata": {**present["metadata"], "labels": labels}}

            self.objects.change(kind, *place(old), renew)

    def _endpoint(self, service: Object, pod: Object, address: str) -> Object:
        meta, spec = pod["metadata"], pod["spec"]
        serving, ending = podstate.ready(pod), bool(meta.get("deletionTimestamp"))
        anyway = bool(service["spec"].get("publishNotReadyAddresses"))
        endpoint: Object = {
            "addresses": [address],
            "conditions": {
                "ready": anyway or (serving and not ending),
                "serving": serving or anyway,
                "terminating": ending,
            },
            "targetRef": {
                "kind": "Pod",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
        }
        if spec.get("nodeName"):
            endpoint["nodeName"] = spec["nodeName"]
            node = self.objects.find("nodes", "", spec["nodeName"])
            zone = ((node or {}).get("metadata", {}).get("labels") or {}).get(_ZONE)
            if zone:
                endpoint["zone"] = zone
        if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
            endpoint["hostname"] = spec["hostname"]
        return endpoint

    # -- Endpoints, the old form

    def _endpoints(self, service: Object, pods: list[Object]) -> None:
        namespace, name = place(service)
        family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
        anyway = bool(service["spec"].get("publishNotReadyAddresses"))
        groups: dict[Ports, tuple[list[Object], list[Object]]] = {}
        for pod in pods[:_LEGACY_MOST]:
            address = _address(pod, family)
            if not address or pod["metadata"].get("deletionTimestamp"):
                continue
            ready, other = groups.setdefault(_ports(service, pod), ([], []))
            (ready if anyway or podstate.ready(pod) else other).append(_legacy(service, pod, address))
        subsets = [_subset(ports, ready, other) for ports, (ready, other) in groups.items()]
        kind = self.objects.kind("endpoints")
        old = self.objects.find("endpoints", namespace, name)
        labels = {**(service["metadata"].get("labels") or {}), _LEGACY_BY: _ME}
        if old is None:
            self.objects.create(
                kind, namespace, {"metadata": {"name": name, "labels": labels}, "subsets": subsets}
            )
        elif (old.get("subsets") or []) != subsets:
            self.objects.change(kind, namespace, name, lambda body: {**body, "subsets": subsets})

    def _remove_endpoints(self, namespace: str, name: str) -> None:
        """What was made here; Endpoints made by hand may come before their service."""
        old = self.objects.find("endpoints", namespace, name)
        if old is not None and (old["metadata"].get("labels") or {}).get(_LEGACY_BY) == _ME:
            self._remove("endpoints", namespace, name)

    def _remove(self, resource: str, namespace: str, name: str) -> None:
        if self.objects.find(resource, namespace, name) is not None:
            self.objects.delete(self.objects.kind(resource), namespace, name)


def _service_of(one: Object) -> str:
    """The service a slice of ours belongs to; empty for slices of others."""
    labels = one["metadata"].get("labels") or {}
    return labels.get(_SERVICE, "") if labels.get(_BY) == _ME else ""


def _selected(selector: dict[str, str], pod: Object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _counts(pod: Object) -> bool:
    """Pods with an address that have not ended."""
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _same(stored: Stored, previous: Stored) -> bool:
    """Whether a change of a pod concerns no endpoint."""
    new, old = stored.object, previous.object
    now, was = new.get("status", {}), old.get("status", {})
    return (
        new["metadata"].get("labels") == old["metadata"].get("labels")
        and new["metadata"].get("deletionTimestamp") == old["metadata"].get("deletionTimestamp")
        and now.get("podIPs") == was.get("podIPs")
        and now.get("podIP") == was.get("podIP")
        and now.get("phase") == was.get("phase")
        and podstate.ready(new) == podstate.ready(old)
        and new["spec"].get("nodeName") == old["spec"].get("nodeName")
    )


def _address(pod: Object, family: str) -> str:
    status = pod.get("status", {})
    known = [one["ip"] for one in status.get("podIPs") or []] or [status.get("podIP") or ""]
    return next((one for one in known if one and (":" in one) == (family == "IPv6")), "")


def _ports(service: Object, pod: Object | None) -> Ports:
    """The service's ports as numbers of `pod`; a named port the pod does not have is left out."""
    found = []
    for port in service["spec"].get("ports") or []:
        target = port.get("targetPort", port["port"])
        protocol = port.get("protocol", "TCP")
        if isinstance(target, str):
            if pod is None:
                continue
            target = _named_port(pod, target, protocol)
        if target:
            found.append((port.get("name", ""), protocol, int(target), port.get("appProtocol", "")))
    return tuple(found)


def _named_port(pod: Object, name: str, protocol: str) -> int:
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]:
        for port in container.get("ports") or []:
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return 0


def _ports_of(one: Object) -> Ports:
    ports = one.get("ports") or []
    return tuple(
        (p.get("name", ""), p.get("protocol", "TCP"), p.get("port", 0), p.get("appProtocol", ""))
        for p in ports
    )


def _port_object(port: tuple[str, str, int, str]) -> Object:
    name, protocol, number, application = port
    shown: Object = {"name": name, "protocol": protocol, "port": number}
    return {**shown, "appProtocol": application} if application else shown


def _legacy(service: Object, pod: Object, address: str) -> Object:
    meta, spec = pod["metadata"], pod["spec"]
    one: Object = {"ip": address}
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        one["hostname"] = spec["hostname"]
    if spec.get("nodeName"):
        one["nodeName"] = spec["nodeName"]
    one["targetRef"] = {
        "kind": "Pod",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }
    return one


def _subset(ports: Ports, ready: list[Object], other: list[Object]) -> Object:
    subset: Object = {}
    if ready:
        subset["addresses"] = ready
    if other:
        subset["notReadyAddresses"] = other
    shown = [_port_object(one) for one in ports]
    subset["ports"] = [{key: value for key, value in one.items() if value != ""} for one in shown]
    return subset
