"""Endpoints made by hand, for services without a selector, as EndpointSlices: one a subset and family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from podwire.apiserver.metadata import owner_reference
from podwire.apiserver.store import Change
from podwire.controllermanager.loop import Controller, place

Object = dict[str, Any]
_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE = "kubernetes.io/service-name"
_BY = "endpointslice.kubernetes.io/managed-by"
_ME = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_MOST = 1000


class EndpointsMirror(Controller):
    name = "endpointslicemirroring-controller"
    watches = ("services", "endpoints")

    def start(self) -> Iterable[tuple[str, str]]:
        return [place(one) for one in self.objects.all("endpoints")]

    def keys(self, change: Change) -> Iterable[tuple[str, str]]:
        return [(change.stored.namespace, change.stored.name)]

    def reconcile(self, key: tuple[str, str]) -> float | None:
        namespace, name = key
        wanted = self._wanted(key)
        kind = self.objects.kind(_SLICES)
        for number in range(len(wanted) + 1):
            # Names are counted, so that what is left over is found without a search.
            slice_name = f"{name}-mirror-{number}"
            body = wanted[number] if number < len(wanted) else None
            old = self.objects.find(_SLICES, namespace, slice_name)
            if old is not None and (body is None or old["addressType"] != body["addressType"]):
                self.objects.delete(kind, namespace, slice_name)
                old = None
            if body is not None and old is None:
                meta = {**body["metadata"], "name": slice_name}
                self.objects.create(kind, namespace, {**body, "metadata": meta})
            elif body is not None and old is not None:
                self.objects.change(kind, namespace, slice_name, _renewing(body))
        number = len(wanted) + 1
        while self.objects.find(_SLICES, namespace, f"{name}-mirror-{number}") is not None:
            self.objects.delete(kind, namespace, f"{name}-mirror-{number}")
            number += 1
        return None

    def _wanted(self, key: tuple[str, str]) -> list[Object]:
        service = self.objects.find("services", *key)
        endpoints = self.objects.find("endpoints", *key)
        if service is None or endpoints is None or service["metadata"].get("deletionTimestamp"):
            return []
        labels = endpoints["metadata"].get("labels") or {}
        if service["spec"].get("selector") or labels.get(_SKIP) == "true":
            return []
        meta = {
            "labels": {**labels, _SERVICE: key[1], _BY: _ME},
            "ownerReferences": [owner_reference(endpoints)],
        }
        found = []
        for subset in endpoints.get("subsets") or []:
            for family in ("IPv4", "IPv6"):
                listed = [
                    _endpoint(one, ready=ready)
                    for field, ready in (("addresses", True), ("notReadyAddresses", False))
                    for one in subset.get(field) or []
                    if (":" in one["ip"]) == (family == "IPv6")
                ]
                if listed:
                    ports = [_port(one) for one in subset.get("ports") or []]
                    body = {"addressType": family, "endpoints": listed[:_MOST], "ports": ports}
                    found.append({"metadata": meta, **body})
        return found


def _renewing(body: Object) -> Callable[[Object], Object]:
    parts = {name: body[name] for name in ("endpoints", "ports")}
    return lambda present: {**present, **parts}


def _endpoint(address: Object, *, ready: bool) -> Object:
    one: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for name in ("hostname", "nodeName", "targetRef"):
        if name in address:
            one[name] = address[name]
    return one


def _port(port: Object) -> Object:
    shown = {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": port["port"]}
    return {**shown, "appProtocol": port["appProtocol"]} if "appProtocol" in port else shown
