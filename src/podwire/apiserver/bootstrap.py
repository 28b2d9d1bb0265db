"""What a cluster has before anybody asked for anything."""

from __future__ import annotations

import ipaddress
from typing import Any

from podwire.apiserver import cilium, crd
from podwire.apiserver.config import ClusterSettings
from podwire.apiserver.objects import Objects

Object = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def bootstrap(objects: Objects) -> None:
    """Namespaces and Cilium's definitions; what is there already stays, but definitions are renewed."""
    namespaces = objects.kind("namespaces")
    for name in NAMESPACES:
        if objects.find("namespaces", "", name) is None:
            objects.create(namespaces, "", {"metadata": {"name": name}})
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
