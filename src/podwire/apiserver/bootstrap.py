"""What a cluster has before anybody asked for anything, and the kinds its definitions make it serve."""

from __future__ import annotations

import ipaddress
from typing import Any

from podwire.apiserver import cilium, crd
from podwire.apiserver.config import ClusterSettings
from podwire.apiserver.kinds import Kind, Registry
from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Change, Store

Object = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def bootstrap(objects: Objects, endpoints: list[tuple[str, int]]) -> None:
    """Namespaces, the API's own service at `endpoints` (address and port), and Cilium's definitions.

    What is there already stays; definitions and endpoints are renewed.
    """
    namespaces = objects.kind("namespaces")
    for name in NAMESPACES:
        if objects.find("namespaces", "", name) is None:
            objects.create(namespaces, "", {"metadata": {"name": name}})
    keep_service(objects, endpoints)
    definitions = objects.kind(crd.RESOURCE)
    for definition in cilium.definitions():
        name = definition["metadata"]["name"]
        known = objects.find(crd.RESOURCE, "", name)
        if known is None:
            objects.create(definitions, "", definition)
        elif known["spec"] != definition["spec"]:
            body = {"metadata": {"name": name}, "spec": definition["spec"]}
            objects.update(definitions, "", name, body)


def own_addresses(settings: ClusterSettings) -> list[str]:
    """The first address of each service range: where pods reach the API itself."""
    return [str(ipaddress.ip_network(cidr)[1]) for cidr in settings.service_cidrs]


def keep_service(objects: Objects, endpoints: list[tuple[str, int]]) -> None:
    """Service, Endpoints and EndpointSlices ``kubernetes``; the API itself keeps them, no controller."""
    addresses = own_addresses(objects.settings)
    labels = {"component": "apiserver", "provider": "kubernetes"}
    if objects.find("services", "default", "kubernetes") is None:
        port = {
            "name": "https",
            "port": 443,
            "protocol": "TCP",
            "targetPort": endpoints[0][1] if endpoints else 443,
        }
        spec = {"type": "ClusterIP", "clusterIP": addresses[0], "clusterIPs": addresses[:1], "ports": [port]}
        body = {"metadata": {"name": "kubernetes", "labels": labels}, "spec": spec}
        objects.create(objects.kind("services"), "default", body)
    for family, name in (("IPv4", "kubernetes"), ("IPv6", "kubernetes-ipv6")):
        mine = [one for one in endpoints if (":" in one[0]) == (family == "IPv6")]
        if mine:
            _api_slice(objects, family, name, mine)


def _api_slice(objects: Objects, family: str, name: str, endpoints: list[tuple[str, int]]) -> None:
    kind = objects.kind("endpointslices.discovery.k8s.io")
    port = endpoints[0][1]
    body: Object = {
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address, _ in endpoints],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
    meta: Object = {"name": name, "labels": {"kubernetes.io/service-name": "kubernetes"}}
    _keep(objects, kind, {"metadata": meta, **body})
    if name == "kubernetes":
        subset = {"addresses": [{"ip": address} for address, _ in endpoints], "ports": body["ports"]}
        label = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        old = {"metadata": {"name": name, "labels": label}, "subsets": [subset]}
        _keep(objects, objects.kind("endpoints"), old)


def _keep(objects: Objects, kind: Kind, body: Object) -> None:
    name = body["metadata"]["name"]
    if objects.find(kind.resource, "default", name) is None:
        objects.create(kind, "default", body)
    else:
        objects.change(kind, "default", name, lambda old: {**old, **body, "metadata": old["metadata"]})


def follow_definitions(store: Store, registry: Registry) -> None:
    """Serve what is defined now, and keep the registry equal to the definitions from here on."""

    def hear(change: Change) -> None:
        if change.resource != crd.RESOURCE:
            return
        definition = change.stored.object
        registry.drop(definition["spec"]["group"], definition["spec"]["names"]["plural"])
        if change.kind != "DELETED":
            for kind in crd.kinds(definition):
                registry.add(kind)

    for stored in store.list(crd.RESOURCE):
        for kind in crd.kinds(stored.object):
            registry.add(kind)
    store.listeners.append(hear)
