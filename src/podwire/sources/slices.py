"""EndpointSlices: the addresses behind services."""

from __future__ import annotations

import sys

from podwire.base.errors import InvalidObject
from podwire.sources.objects import Fields, Named, Port, address, items, labels_of, name_of, protocol
from podwire.state.tables import SliceEndpoint, SliceRow

SERVICE_NAME = "kubernetes.io/service-name"
FAMILIES = {"IPv4": 4, "IPv6": 6}


class Conditions(Fields, frozen=True, gc=False):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Entry(Fields, frozen=True, gc=False):
    addresses: list[str] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None


class SlicePort(Fields, frozen=True, gc=False):
    name: str | None = None
    port: Port | None = None
    protocol: str | None = None


class EndpointSlice(Named, frozen=True, gc=False):
    address_type: str | None = None
    endpoints: list[Entry] | None = None
    ports: list[SlicePort] | None = None


NO_CONDITIONS = Conditions()


def row_of(item: EndpointSlice) -> SliceRow:
    """discovery.k8s.io/v1 EndpointSlice → row. Named target ports are numbers here already."""
    namespace, name = name_of(item)
    kind = item.address_type
    if kind not in FAMILIES:
        raise InvalidObject("addressType", f"must be IPv4 or IPv6, not {kind!r}")
    return SliceRow(
        namespace=namespace,
        name=name,
        service=labels_of(item).get(SERVICE_NAME, ""),
        family=FAMILIES[kind],
        endpoints=tuple(_endpoint(entry, f"endpoints[{index}]") for index, entry in items(item.endpoints)),
        ports=tuple(
            (port.name or "", port.port, protocol(port.protocol, f"ports[{index}]"))
            for index, port in items(item.ports)
            if port.port is not None  # without a number it means all ports, which no service has
        ),
    )


def _endpoint(entry: Entry, path: str) -> SliceEndpoint:
    conditions = entry.conditions or NO_CONDITIONS
    ready = conditions.ready is not False
    if not entry.addresses:
        raise InvalidObject(f"{path}.addresses", "must not be empty")
    return SliceEndpoint(
        address=address(entry.addresses[0], f"{path}.addresses[0]"),  # the others mean the same endpoint
        ready=ready,
        serving=ready if conditions.serving is None else conditions.serving,
        terminating=bool(conditions.terminating),
        node=sys.intern(entry.node_name or ""),
    )
