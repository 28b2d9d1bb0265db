"""What the API has: groups, versions and resources, in the old form and the aggregated one. Pure."""

from __future__ import annotations

from typing import Any

from podwire.apiserver.kinds import Kind, Registry

Object = dict[str, Any]


def versions(address: str) -> Object:
    """``/api``."""
    servers = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": servers}


def group(registry: Registry, name: str) -> Object:
    """One APIGroup."""
    served = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for version in _ranked(registry.groups()[name])
    ]
    return {"name": name, "versions": served, "preferredVersion": served[0]}


def groups(registry: Registry) -> Object:
    """``/apis``."""
    named = [group(registry, name) for name in registry.groups() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}


def resources(registry: Registry, name: str, version: str) -> Object:
    """``/api/v1`` or ``/apis/<group>/<version>``."""
    listed: list[Object] = []
    for kind in registry.of_version(name, version):
        if kind.plural != "bindings" or not name:
            listed.append(_resource(kind))
        for sub in kind.subresources:
            entry: Object = {
                "name": f"{kind.plural}/{sub.name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub.kind,
                "verbs": list(sub.verbs),
            }
            if sub.version:
                entry |= {"group": sub.group, "version": sub.version}
            listed.append(entry)
    version_name = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version_name, "resources": listed}


def _resource(kind: Kind) -> Object:
    entry: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        entry["shortNames"] = list(kind.short)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    return entry


def aggregated(registry: Registry, names: list[str], api_version: str) -> Object:
    """APIGroupDiscoveryList of these groups, as ``/api`` and ``/apis`` answer it."""
    items = []
    for name in names:
        served = [_version(registry, name, version) for version in _ranked(registry.groups()[name])]
        meta = {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None}
        items.append({"metadata": meta, "versions": served})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}


def _version(registry: Registry, name: str, version: str) -> Object:
    listed = []
    for kind in registry.of_version(name, version):
        entry: Object = {
            "resource": kind.plural,
            "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "singularResource": kind.singular,
            "verbs": list(kind.verbs),
        }
        if kind.short:
            entry["shortNames"] = list(kind.short)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        if kind.subresources:
            entry["subresources"] = [
                {
                    "subresource": sub.name,
                    "responseKind": {
                        "group": sub.group if sub.version else kind.group,
                        "version": sub.version or kind.version,
                        "kind": sub.kind,
                    },
                    "verbs": list(sub.verbs),
                }
                for sub in kind.subresources
            ]
        listed.append(entry)
    return {"version": version, "resources": listed, "freshness": "Current"}


def _ranked(served: list[str]) -> list[str]:
    """Stable before beta before alpha, higher numbers first."""
    return sorted(served, key=lambda one: ("beta" in one, "alpha" in one, _numbers(one)))


def _numbers(version: str) -> list[int]:
    digits = "".join(one if one.isdigit() else " " for one in version).split()
    return [-int(one) for one in digits]
