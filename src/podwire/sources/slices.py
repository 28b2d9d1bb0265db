"""EndpointSlices: the addresses behind services."""

from __future__ import annotations

from podwire.base.errors import InvalidObject
from podwire.sources.objects import (
    Object,
    address,
    flag,
    items,
    labels,
    mapping,
    name_of,
    number,
    protocol,
    text,
    texts,
)
from podwire.state.tables import SliceEndpoint, SliceRow

SERVICE_NAME = "kubernetes.io/service-name"
FAMILIES = {"IPv4": 4, "IPv6": 6}


def row_of(item: Object) -> SliceRow:
    """discovery.k8s.io/v1 EndpointSlice → row. Named target ports are numbers here already."""
    namespace, name = name_of(item)
    kind = text(item, "addressType")
    if kind not in FAMILIES:
        raise InvalidObject("addressType", f"must be IPv4 or IPv6, not {kind!r}")
    return SliceRow(
        namespace=namespace,
        name=name,
        service=labels(mapping(item, "metadata")).get(SERVICE_NAME, ""),
        family=FAMILIES[kind],
        endpoints=endpoints_of(item),
        ports=tuple(
            (text(port, "name", path), number(port, "port", path), protocol(port, path))
            for index, port in enumerate(items(item, "ports"))
            for path in (f"ports[{index}]",)
            if port.get("port") is not None  # without a number it means all ports, which no service has
        ),
    )


def endpoints_of(item: Object) -> tuple[SliceEndpoint, ...]:
    found = []
    for index, entry in enumerate(items(item, "endpoints")):
        path = f"endpoints[{index}]"
        conditions = mapping(entry, "conditions", path)
        ready = flag(conditions, "ready", f"{path}.conditions", default=True)
        addresses = texts(entry, "addresses", path)
        if not addresses:
            raise InvalidObject(f"{path}.addresses", "must not be empty")
        found.append(
            SliceEndpoint(
                address=address(addresses[0], f"{path}.addresses[0]"),  # the others mean the same endpoint
                ready=ready,
                serving=flag(conditions, "serving", f"{path}.conditions", default=ready),
                terminating=flag(conditions, "terminating", f"{path}.conditions"),
                node=text(entry, "nodeName", path),
            )
        )
    return tuple(found)
