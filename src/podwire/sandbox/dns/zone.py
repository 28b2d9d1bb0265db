"""What cluster DNS answers: names of services, endpoints and pods, as Kubernetes specifies them.

Records are values: (type, data), the data as text. Pure over `Find` and `All`, which read objects.
None is "no such name"; an empty list is a name that exists and has no record of that type.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

Object = dict[str, Any]
Find = Callable[[str, str, str], Object | None]
All = Callable[[str, str | None], list[Object]]
SLICES = "endpointslices.discovery.k8s.io"
DOMAIN = "cluster.local"


class Record(msgspec.Struct, frozen=True):
    """`type` is A, AAAA, SRV, PTR or CNAME; SRV data is ``priority weight port target``."""

    type: str
    data: str


class Endpoint(msgspec.Struct, frozen=True):
    address: str
    hostname: str
    ports: tuple[tuple[str, str, int], ...]  # (name, protocol, port)


class Zone:
    """The names below `domain`, and the addresses that belong to it."""

    def __init__(self, find: Find, all: All, domain: str = DOMAIN) -> None:
        self._find, self._all, self.domain = find, all, domain

    def owns(self, name: str) -> bool:
        """Whether `name` (lower case, no final dot) is answered here and nowhere else."""
        return name == self.domain or name.endswith("." + self.domain)

    def lookup(self, name: str) -> list[Record] | None:
        """All records of `name`; None if there is no such name."""
        rest = name.removesuffix(self.domain).rstrip(".")
        labels = rest.split(".") if rest else []
        match labels[::-1]:
            case [] | ["svc"] | ["pod"]:
                return []
            case ["svc" | "pod", namespace]:
                return [] if self._find("namespaces", "", namespace) else None
            case ["svc", namespace, service, *inner]:
                return self._service(namespace, service, inner[::-1])
            case ["pod", namespace, address]:
                return self._pod(namespace, address)
        return None

    def reverse(self, address: str) -> list[Record] | None:
        """PTR records of an address of the cluster; None if it is not known."""
        found = []
        for service in self._all("services", None):
            if address in _cluster_addresses(service):
                found.append(Record("PTR", self._name_of(service) + "."))
        for slice_ in self._all(SLICES, None):
            owner = (slice_["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
            service_ = self._find("services", slice_["metadata"]["namespace"], owner or "")
            if service_ is None or not _headless(service_):
                continue
            for endpoint in _endpoints([slice_], unready=True):
                if endpoint.address == address:
                    found.append(Record("PTR", f"{_label(endpoint)}.{self._name_of(service_)}."))
        return found or None

    def _service(self, namespace: str, name: str, inner: list[str]) -> list[Record] | None:
        service = self._find("services", namespace, name)
        if service is None:
            return None
        if service["spec"].get("type") == "ExternalName":
            return None if inner else [Record("CNAME", service["spec"]["externalName"].rstrip(".") + ".")]
        if len(inner) == 2 and all(label.startswith("_") for label in inner):
            return self._srv(service, inner[0][1:], inner[1][1:])
        if not _headless(service):
            return None if inner else [_address(one) for one in _cluster_addresses(service)]
        endpoints = list(self._endpoints_of(service))
        if not inner:
            return [_address(one.address) for one in endpoints]
        if len(inner) > 1:
            return None
        return [
            _address(one.address) for one in endpoints if inner[0] in (one.hostname, _dashed(one.address))
        ] or None

    def _srv(self, service: Object, port: str, protocol: str) -> list[Record] | None:
        target = self._name_of(service) + "."
        if not _headless(service):
            ports = service["spec"].get("ports") or []
            return [
                Record("SRV", f"0 100 {one['port']} {target}")
                for one in ports
                if one.get("name") == port and one.get("protocol", "TCP").lower() == protocol
            ] or None
        return [
            Record("SRV", f"0 100 {number} {_label(endpoint)}.{target}")
            for endpoint in self._endpoints_of(service)
            for name, kind, number in endpoint.ports
            if name == port and kind.lower() == protocol
        ] or None

    def _pod(self, namespace: str, dashed: str) -> list[Record] | None:
        for pod in self._all("pods", namespace):
            for one in (pod.get("status") or {}).get("podIPs") or []:
                if _dashed(one["ip"]) == dashed:
                    return [_address(one["ip"])]
        return None

    def _endpoints_of(self, service: Object) -> Iterator[Endpoint]:
        meta = service["metadata"]
        slices = [
            one
            for one in self._all(SLICES, meta["namespace"])
            if (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == meta["name"]
        ]
        return _endpoints(slices, unready=bool(service["spec"].get("publishNotReadyAddresses")))

    def _name_of(self, service: Object) -> str:
        return f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{self.domain}"


def _endpoints(slices: list[Object], *, unready: bool) -> Iterator[Endpoint]:
    for slice_ in slices:
        ports = tuple(
            (one.get("name") or "", one.get("protocol") or "TCP", int(one["port"]))
            for one in slice_.get("ports") or []
            if one.get("port")
        )
        for endpoint in slice_.get("endpoints") or []:
            if unready or (endpoint.get("conditions") or {}).get("ready", True):
                for address in endpoint["addresses"]:
                    yield Endpoint(address, endpoint.get("hostname") or "", ports)


def _cluster_addresses(service: Object) -> list[str]:
    spec = service["spec"]
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [one for one in found if one and one != "None"]


def _headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def _label(endpoint: Endpoint) -> str:
    return endpoint.hostname or _dashed(endpoint.address)


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _address(text: str) -> Record:
    return Record("AAAA" if ":" in text else "A", text)


def pointed_at(name: str) -> str | None:
    """The address a reverse name asks for; None if it is none."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(labels[3::-1])))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            digits = "".join(labels[31::-1])
            return str(ipaddress.IPv6Address(bytes.fromhex(digits)))
    except ValueError:
        return None
    return None
