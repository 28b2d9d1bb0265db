"""Which service addresses and node ports are taken. Follows the store, so it is never behind."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import Any

from podwire.apiserver.config import ClusterSettings
from podwire.apiserver.status import FieldError
from podwire.apiserver.store import Change, Store
from podwire.base.addresses import IPNetwork
from podwire.base.numbers import Circle

Object = dict[str, Any]
_RESERVED = 10  # first addresses of a range are only given by name: the API's own, DNS


class Allocations:
    """Addresses and ports of all Services. `address` and `port` give a free one, the least recently used."""

    def __init__(self, store: Store, settings: ClusterSettings) -> None:
        self._ranges = [ipaddress.ip_network(cidr) for cidr in settings.service_cidrs]
        self._low, self._high = settings.node_ports
        self._addresses: dict[str, tuple[str, str]] = {}
        self._ports: dict[tuple[int, str], tuple[str, str]] = {}
        self._free_offsets = {network: _offsets(network.num_addresses) for network in self._ranges}
        self._free_ports = Circle(self._low, self._high)
        for stored in store.list("services"):
            self._take(stored.object)
        store.listeners.append(self._hear)

    @property
    def families(self) -> list[str]:
        """IPv4 and IPv6 as far as there is a range, the cluster's first one first."""
        return list(dict.fromkeys(f"IPv{one.version}" for one in self._ranges))

    def address(self, family: str) -> str:
        """A free address; FieldError where the range is used up."""
        for network in self._ranges:
            if f"IPv{network.version}" != family:
                continue
            offset = self._free_offsets[network].next(partial(self._has, network))
            if offset is not None:
                return str(network[offset])
        raise FieldError("spec.clusterIPs", f"no {family} address is free in the service range", value="")

    def _has(self, network: IPNetwork, offset: int) -> bool:
        return str(network[offset]) in self._addresses

    def claim(self, address: str, owner: tuple[str, str], path: str) -> None:
        """Whether `owner` may have this very address."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            raise FieldError(path, "must be a valid IP address", value=address) from None
        if not any(parsed in one for one in self._ranges if one.version == parsed.version):
            listed = ", ".join(str(one) for one in self._ranges)
            raise FieldError(path, f"the provided IP is not in the valid range ({listed})", value=address)
        holder = self._addresses.get(str(parsed))
        if holder not in (None, owner):
            raise FieldError(path, "provided IP is already allocated", value=address)

    def port(self, protocol: str, also: set[int]) -> int:
        """A free node port, not in `also`."""
        port = self._free_ports.next(lambda one: (one, protocol) in self._ports or one in also)
        if port is None:
            raise FieldError("spec.ports", "no node port is free", value="")
        return port

    def claim_port(self, port: int, protocol: str, owner: tuple[str, str], path: str) -> None:
        """Whether `owner` may have this very port."""
        if not self._low <= port <= self._high:
            detail = f"provided port is not in the valid range of {self._low}-{self._high}"
            raise FieldError(path, detail, value=port)
        if self._ports.get((port, protocol)) not in (None, owner):
            raise FieldError(path, "provided port is already allocated", value=port)

    def _hear(self, change: Change) -> None:
        if change.resource != "services":
            return
        if change.previous is not None:
            spec = change.previous.object["spec"]
            for address in spec.get("clusterIPs") or []:
                self._addresses.pop(address, None)
            for port in spec.get("ports") or []:
                self._ports.pop((port.get("nodePort", 0), port.get("protocol", "TCP")), None)
        if change.kind != "DELETED":
            self._take(change.stored.object)

    def _take(self, service: Object) -> None:
        owner = (service["metadata"]["namespace"], service["metadata"]["name"])
        for address in service["spec"].get("clusterIPs") or []:
            if address != "None":
                self._addresses[address] = owner
        for port in service["spec"].get("ports") or []:
            if port.get("nodePort"):
                self._ports[port["nodePort"], port.get("protocol", "TCP")] = owner


def _offsets(count: int) -> Circle:
    """Of a range of `count` addresses, where those are that are given without being asked for by name."""
    size = min(count - 1, 1 << 20)
    return Circle(min(_RESERVED, size // 4) + 1, size - 1)
