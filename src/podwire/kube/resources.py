"""Resources by name: what the rest of podwire asks the API for."""

from __future__ import annotations

import msgspec


class Resource(msgspec.Struct, frozen=True):
    """Where a kind is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``v1``, ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The URL's path. A namespace of None means all of them (or none, for cluster-scoped kinds)."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{base}{place}/{self.plural}{tail}"


def _core(plural: str, kind: str, namespaced: bool = True) -> Resource:
    return Resource("", "v1", plural, kind, namespaced)


def _cilium(plural: str, kind: str, namespaced: bool = True) -> Resource:
    return Resource("cilium.io", "v2", plural, kind, namespaced)


CONFIG_MAPS = _core("configmaps", "ConfigMap")
ENDPOINTS = _core("endpoints", "Endpoints")
EVENTS = _core("events", "Event")
NAMESPACES = _core("namespaces", "Namespace", False)
NODES = _core("nodes", "Node", False)
PODS = _core("pods", "Pod")
SECRETS = _core("secrets", "Secret")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount")
SERVICES = _core("services", "Service")
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
CILIUM_NETWORK_POLICIES = _cilium("ciliumnetworkpolicies", "CiliumNetworkPolicy")
CILIUM_CLUSTERWIDE_NETWORK_POLICIES = _cilium(
    "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", False
)
CILIUM_ENDPOINTS = _cilium("ciliumendpoints", "CiliumEndpoint")
CILIUM_IDENTITIES = _cilium("ciliumidentities", "CiliumIdentity", False)
CILIUM_NODES = _cilium("ciliumnodes", "CiliumNode", False)

KNOWN = (
    *(CONFIG_MAPS, ENDPOINTS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES),
    *(
        DAEMON_SETS,
        DEPLOYMENTS,
        REPLICA_SETS,
        ENDPOINT_SLICES,
        LEASES,
        NETWORK_POLICIES,
        CUSTOM_RESOURCE_DEFINITIONS,
    ),
    *(
        CILIUM_NETWORK_POLICIES,
        CILIUM_CLUSTERWIDE_NETWORK_POLICIES,
        CILIUM_ENDPOINTS,
        CILIUM_IDENTITIES,
        CILIUM_NODES,
    ),
)


def known(api_version: str, kind: str) -> Resource | None:
    """The resource of a kind without asking the API, where podwire knows it."""
    return next((one for one in KNOWN if one.api_version == api_version and one.kind == kind), None)
