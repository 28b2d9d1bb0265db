"""The node of a scenario: manifests become rows as they would on a real one, and the stages settle.

Two nodes are there: n1, this one, with pods in 10.0.1.0/24, and n2 with pods in 10.0.2.0/24. Pods get
addresses in the order they are applied, unless they come with one; they run on n1 unless they say n2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import yaml

from podwire.agent.labeling import labels_of
from podwire.base.errors import InvalidObject
from podwire.ipam.pools import Pools
from podwire.loadbalancer.frontends import Frontends
from podwire.model.cluster import OWN
from podwire.policy.parse import PARSERS, parse
from podwire.sources import namespaces, nodes, pods, policies, services, slices
from podwire.sources.objects import Named, of
from podwire.state.tables import EndpointRow, NamespaceRow, PodRow, RemoteEndpointRow, Tables
from podwire.stores.identities import Known
from podwire.testing.walk import Walk

NODES = {"n1": ("172.18.0.1", "fd00:172::1"), "n2": ("172.18.0.2", "fd00:172::2")}
POD_CIDRS = {"n1": ("10.0.1.0/24", "fd00:10:0:1::/64"), "n2": ("10.0.2.0/24", "fd00:10:0:2::/64")}


@dataclass(frozen=True)
class Packet:
    """`source` and `destination` are addresses; `sender` and `receiver` endpoints of this node, or None."""

    source: str
    destination: str
    protocol: int
    source_port: int
    port: int
    sender: EndpointRow | None
    receiver: EndpointRow | None


@dataclass
class ScenarioNode:
    """`device` gives (ifindex, mac, host mac) of the n-th endpoint, where there is a kernel."""

    dual: bool = False
    tunnel: bool = False
    service_cidrs: tuple[str, ...] = ()
    device: Callable[[int], tuple[int, str, str]] = lambda number: (number, "", "")
    walk: Walk = field(init=False)

    def __post_init__(self) -> None:
        self.walk = Walk(ipv6=self.dual, tunnel=self.tunnel, service_cidrs=self.service_cidrs)
        families = 2 if self.dual else 1
        self._frontends = Frontends(self.tables, restored_backends={}, restored_services={}, restored_sets={})
        self._pools: dict[str, Pools] = {}
        for name, addresses in NODES.items():
            cidrs = POD_CIDRS[name][:families]
            row = nodes.row_of(of(nodes.Node, _node(name, addresses[:families], cidrs)), "n1")
            self.tables.nodes.put(row)
            self._pools[name] = Pools(cidrs, row.router_addresses)
        self._namespace({"metadata": {"name": "default"}})
        self.settle()

    @property
    def tables(self) -> Tables:
        return self.walk.tables

    def settle(self) -> None:
        self._frontends.update([(OWN, row.namespace, row.name) for row in self.tables.services])
        self.walk.settle()

    # --- manifests

    def apply(self, text: str) -> None:
        """Each document of a YAML text."""
        for item in yaml.safe_load_all(text):
            if item is None:
                continue
            kind = item.get("kind") if isinstance(item, dict) else None
            metadata = item.get("metadata") if isinstance(item, dict) else None
            if not isinstance(metadata, dict):
                raise InvalidObject("metadata", "must be an object")
            if kind in PARSERS:
                self._policy(item, str(kind))
                continue
            appliers: dict[str, Callable[[dict[str, Any]], None]] = {
                "Namespace": self._namespace,
                "Pod": self._pod,
                "Service": lambda one: self._put(
                    "services", services.row_of(of(services.Service, _placed(one)))
                ),
                "EndpointSlice": lambda one: self._put(
                    "slices", slices.row_of(of(slices.EndpointSlice, _placed(one)))
                ),
            }
            if kind not in appliers:
                raise InvalidObject("kind", f"a scenario knows no {kind}")
            appliers[str(kind)](item)

    def delete(self, kind: str, name: str) -> None:
        """``Pod prod/web``, ``CiliumNetworkPolicy prod/web``."""
        namespace, _, name = name.rpartition("/")
        if kind == "Pod":
            self._remove_pod(namespace or "default", name)
            return
        if kind in PARSERS:
            space = "" if "Clusterwide" in kind else namespace or "default"
            gone = self.tables.policies.delete((kind, space, name))
        else:
            gone = self.tables.named(f"{kind.lower()}s").delete((namespace or "default", name))
        if gone is None:
            raise InvalidObject(f"{kind} {namespace}/{name}", "is not there")

    def _put(self, table: str, row: object) -> None:
        self.tables.named(table).put(row)

    def _namespace(self, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        labels = (metadata.get("labels") or {}) | {"kubernetes.io/metadata.name": metadata["name"]}
        self._put("namespaces", namespaces.row_of(of(Named, {"metadata": metadata | {"labels": labels}})))

    def _policy(self, item: dict[str, Any], kind: str) -> None:
        placed = item if "Clusterwide" in kind else _placed(item)
        self.tables.policies.put(policies.row_of(placed, kind, parse))

    def _pod(self, item: dict[str, Any]) -> None:
        item = _placed(item)
        spec, status = dict(item.get("spec") or {}), dict(item.get("status") or {})
        node = spec.setdefault("nodeName", "n1")
        metadata = item["metadata"]
        key = metadata["namespace"], metadata["name"]
        known = self.tables.pods.get(key) or self.tables.remote_endpoints.get((OWN, *key))
        if known is not None:
            status["podIPs"] = [{"ip": address} for address in known.addresses]
        elif "podIP" not in status:
            given = self._pools[node].allocate(f"{metadata['namespace']}/{metadata['name']}")
            status["podIPs"] = [{"ip": address} for address in (given.ipv4, given.ipv6) if address]
        status.setdefault("phase", "Running")
        row = pods.row_of(of(pods.Pod, {**item, "spec": spec, "status": status}))
        if row.namespace not in self.tables.namespaces:
            self._namespace({"metadata": {"name": row.namespace}})
        space = self.tables.namespaces.get(row.namespace)
        assert space is not None
        if node == "n1":
            self.tables.pods.put(row)
            self._endpoint(row, space)
        else:
            self._remote(row, space)

    def _endpoint(self, row: PodRow, space: NamespaceRow) -> None:
        known = self.tables.endpoints.by("pod", (row.namespace, row.name))
        number = known[0].id if known else max((one.id for one in self.tables.endpoints), default=0) + 1
        ifindex, mac, host_mac = self.device(number)
        addresses = {ip_address(one).version: one for one in row.addresses}
        self.tables.endpoints.put(
            EndpointRow(
                id=number,
                namespace=row.namespace,
                pod=row.name,
                uid=row.uid,
                container_id=f"{row.namespace}/{row.name}",
                netns="",
                interface=f"pw{number}",
                ifindex=ifindex,
                mac=mac,
                host_mac=host_mac,
                ipv4=addresses.get(4, ""),
                ipv6=addresses.get(6, ""),
                labels=labels_of(row, space, "default"),
                identity=known[0].identity if known else 0,
                ports=row.ports,
                state="ready",
            )
        )

    def _remote(self, row: PodRow, space: NamespaceRow) -> None:
        found = labels_of(row, space, "default")
        number = self.walk.identity(found)
        self.walk.allocator.apply(Known(number, found))
        self.tables.remote_endpoints.put(
            RemoteEndpointRow(
                *(row.namespace, row.name, number, row.addresses, NODES[row.node][0], row.ports),
                *(row.workload_kind, row.workload_name),
            )
        )

    def _remove_pod(self, namespace: str, name: str) -> None:
        key = namespace, name
        if self.tables.pods.delete(key) is None and self.tables.remote_endpoints.delete((OWN, *key)) is None:
            raise InvalidObject(f"Pod {namespace}/{name}", "is not there")
        for endpoint in self.tables.endpoints.by("pod", (namespace, name)):
            self.tables.endpoints.delete(endpoint.id)

    # --- packets

    def packet(self, source: str, target: str, protocol: int, source_port: int, port: int) -> Packet:
        """A packet between two places: pods by name, nodes by name, or addresses."""
        ipv6 = ":" in source or ":" in target
        there, here = self._address(source, ipv6), self._address(target, ipv6)
        if protocol == 1:
            protocol, port = (58, 0x8000) if ipv6 else (1, 0x0800)
        return Packet(there, here, protocol, source_port, port, self._at(there), self._at(here))

    def _at(self, address: str) -> EndpointRow | None:
        return next(iter(self.tables.endpoints.by("address", address)), None)

    def _address(self, place: str, ipv6: bool) -> str:
        if place in NODES:
            return NODES[place][ipv6]
        try:
            return str(ip_address(place))
        except ValueError:
            pass
        namespace, _, name = place.rpartition("/")
        everywhere: tuple[PodRow | RemoteEndpointRow, ...] = (
            *self.tables.pods,
            *self.tables.remote_endpoints,
        )
        found = [
            row for row in everywhere if row.name == name and (not namespace or row.namespace == namespace)
        ]
        if len(found) != 1:
            raise InvalidObject(place, f"is the name of {len(found)} pods", hint="write namespace/name")
        chosen = [one for one in found[0].addresses if (":" in one) == ipv6]
        if not chosen:
            raise InvalidObject(place, "has no address of that family")
        return chosen[0]


def _placed(item: dict[str, Any]) -> dict[str, Any]:
    """With a namespace, as the API gives it."""
    return {**item, "metadata": {"namespace": "default"} | item["metadata"]}


def _node(name: str, addresses: tuple[str, ...], cidrs: tuple[str, ...]) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"podCIDRs": list(cidrs)},
        "status": {"addresses": [{"type": "InternalIP", "address": one} for one in addresses]},
    }
