"""Reading fields of Kubernetes objects: the right type or InvalidObject with the path.

An API server checks most of this, but not for objects of resources it has no schema of, and the
agent must not fall over what it is sent.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from podwire.base.errors import InvalidObject

Object = Mapping[str, Any]

PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}


def mapping(parent: Object, key: str, path: str = "") -> Object:
    """The object at `key`; empty where there is none."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidObject(_join(path, key), "must be an object")
    return value


def items(parent: Object, key: str, path: str = "") -> Sequence[Object]:
    """The list of objects at `key`; empty where there is none."""
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidObject(_join(path, key), "must be a list")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise InvalidObject(f"{_join(path, key)}[{index}]", "must be an object")
    return value


def texts(parent: Object, key: str, path: str = "") -> tuple[str, ...]:
    """The list of strings at `key`."""
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidObject(_join(path, key), "must be a list of strings")
    return tuple(value)


def text(parent: Object, key: str, path: str = "", default: str = "") -> str:
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise InvalidObject(_join(path, key), "must be a string")
    return value


def number(parent: Object, key: str, path: str = "", default: int = 0, most: int = 65535) -> int:
    """The number at `key`, 0..`most`."""
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise InvalidObject(_join(path, key), f"must be a number from 0 to {most}")
    return value


def flag(parent: Object, key: str, path: str = "", default: bool = False) -> bool:
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidObject(_join(path, key), "must be true or false")
    return value


def labels(parent: Object, key: str = "labels", path: str = "metadata") -> dict[str, str]:
    found = mapping(parent, key, path)
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidObject(f"{_join(path, key)}.{name}", "must be a string")
    return dict(found)


def protocol(parent: Object, path: str = "") -> int:
    """The IPPROTO number of `protocol`; TCP where there is none."""
    name = text(parent, "protocol", path, "TCP")
    if name not in PROTOCOLS:
        raise InvalidObject(_join(path, "protocol"), f"must be one of {', '.join(PROTOCOLS)}, not {name!r}")
    return PROTOCOLS[name]


def address(value: str, path: str) -> str:
    """Canonical text of an address.

    IPv4 in IPv6 form is the very key that IPv4 has in the kernel, and would take its place there.
    """
    try:
        found = ip_address(value)
    except ValueError as error:
        raise InvalidObject(path, f"{value!r} is no IP address") from error
    if isinstance(found, IPv6Address) and (found.scope_id is not None or found.ipv4_mapped):
        raise InvalidObject(path, f"{value!r} is no address of a cluster: write IPv4 as such, and no zone")
    return str(found)


def prefix(value: str, path: str) -> str:
    """Canonical text of a prefix."""
    try:
        found = ip_network(value, strict=False)
    except ValueError as error:
        raise InvalidObject(path, f"{value!r} is no CIDR") from error
    address(str(found.network_address), path)
    return str(found)


def name_of(item: Object) -> tuple[str, str]:
    """(namespace, name), whatever else is wrong with the object."""
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping):
        return "", ""
    namespace, name = metadata.get("namespace"), metadata.get("name")
    return (namespace if isinstance(namespace, str) else "", name if isinstance(name, str) else "")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
