"""Cilium's kinds, served as CustomResourceDefinitions under the names its clients know. Pure."""

from __future__ import annotations

from typing import Any

from podwire.apiserver.schemas import written_out

Object = dict[str, Any]
_AGE: Object = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_VALID: Object = {
    "name": "Valid",
    "type": "string",
    "jsonPath": ".status.conditions[?(@.type=='Valid')].status",
}


def _column(name: str, path: str, kind: str = "string", **more: Any) -> Object:
    return {"name": name, "type": kind, "jsonPath": path, **more}


def _definition(
    plural: str,
    kind: str,
    short: list[str],
    *,
    namespaced: bool,
    columns: list[Object],
    policy: bool = False,
    status: bool = True,
) -> Object:
    version: Object = {
        "name": "v2",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _schema(kind, policy=policy)},
        "additionalPrinterColumns": columns,
    }
    if status:
        version["subresources"] = {"status": {}}
    names = {
        "plural": plural,
        "singular": kind.lower(),
        "kind": kind,
        "listKind": kind + "List",
        "shortNames": short,
        "categories": ["cilium", *(["ciliumpolicy"] if policy else [])],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cilium.io", "labels": {"io.cilium.k8s.crd.schema.version": "1.32.0"}},
        "spec": {
            "group": "cilium.io",
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def _schema(kind: str, *, policy: bool) -> Object:
    schema = written_out(kind)
    if policy:
        rule = schema["properties"]["spec"]
        subject = ("endpointSelector", "nodeSelector")
        directions = ("ingress", "ingressDeny", "egress", "egressDeny")
        rule |= {
            "oneOf": [{"required": [one]} for one in subject],
            "anyOf": [{"required": [one]} for one in directions],
        }
        schema["properties"]["specs"]["items"] = rule
    typed = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    return {**schema, "properties": {**typed, **schema["properties"]}}


def definitions() -> list[Object]:
    """CNP, CCNP, CiliumEndpoint, CiliumIdentity, CiliumNode."""
    endpoint = [
        _column("Security Identity", ".status.identity.id", "integer"),
        _column("Ingress Enforcement", ".status.policy.ingress.state", priority=1),
        _column("Egress Enforcement", ".status.policy.egress.state", priority=1),
        _column("Endpoint State", ".status.state"),
        _column("IPv4", ".status.networking.addressing[0].ipv4"),
        _column("IPv6", ".status.networking.addressing[0].ipv6"),
    ]
    node = [
        _column("CiliumInternalIP", '.spec.addresses[?(@.type=="CiliumInternalIP")].ip'),
        _column("InternalIP", '.spec.addresses[?(@.type=="InternalIP")].ip'),
        _AGE,
    ]
    namespace = _column("Namespace", r".metadata.labels.io\.kubernetes\.pod\.namespace")
    return [
        _definition(
            "ciliumnetworkpolicies",
            "CiliumNetworkPolicy",
            ["cnp", "ciliumnp"],
            namespaced=True,
            columns=[_AGE, _VALID],
            policy=True,
        ),
        _definition(
            "ciliumclusterwidenetworkpolicies",
            "CiliumClusterwideNetworkPolicy",
            ["ccnp"],
            namespaced=False,
            columns=[_VALID, _AGE],
            policy=True,
        ),
        _definition(
            "ciliumendpoints", "CiliumEndpoint", ["cep", "ciliumep"], namespaced=True, columns=endpoint
        ),
        _definition(
            "ciliumidentities",
            "CiliumIdentity",
            ["ciliumid"],
            namespaced=False,
            columns=[namespace, _AGE],
            status=False,
        ),
        _definition("ciliumnodes", "CiliumNode", ["cn", "ciliumn"], namespaced=False, columns=node),
    ]
