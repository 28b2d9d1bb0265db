"""`lab.yaml`: the topology of a sandbox, checked, with the path of what is wrong.

::

    name: first-light        # of the sandbox, unless --name is given
    nodes: 2                 # n1, n2, …; or a list of names, or of {name: a, podCIDRs: [10.9.0.0/24]}
    ipFamily: ipv4           # ipv4 | ipv6 | dual
    routing: native          # native | tunnel (VXLAN)
    mtu: 1500                # of the underlay
    worlds:                  # hosts outside the cluster
      - name: resolver
        addresses: [203.0.113.53]
        serve: [53]          # ports that answer: HTTP on TCP, what they got on UDP
    dns:
      upstreams: []          # where cluster DNS asks for other names; none: they are refused
    manifests: [pods.yaml]   # applied when the nodes are ready, in this order

The format is public: it may grow, but what is valid stays valid.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Literal

import msgspec

from podwire.base.errors import ConfigError, InvalidObject, PodwireError
from podwire.kube.documents import parse_yaml
from podwire.sandbox.places import check_name

NODES_MAX = 16
Family = Literal["ipv4", "ipv6", "dual"]
Routing = Literal["native", "tunnel"]
THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
RESERVED = ("net", "system")  # names of the sandbox's own namespace and cgroup


class NodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node with a name, and pod CIDRs, of its own choice; one CIDR for each family of the lab."""

    name: str
    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")


class World(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host outside the cluster, on the underlay, with `addresses` of its own."""

    name: str
    addresses: tuple[str, ...]
    serve: tuple[int, ...] = ()


class Dns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    upstreams: tuple[str, ...] = ()


class Lab(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A topology. `manifests` are absolute once read from a file."""

    name: str = "default"
    nodes: int | tuple[str | NodeSpec, ...] = 2
    ip_family: Family = "ipv4"
    routing: Routing = "native"
    mtu: int = 1500
    worlds: tuple[World, ...] = ()
    dns: Dns = Dns()
    manifests: tuple[str, ...] = ()

    @property
    def node_specs(self) -> tuple[NodeSpec, ...]:
        if isinstance(self.nodes, int):
            return tuple(NodeSpec(f"n{number}") for number in range(1, self.nodes + 1))
        return tuple(NodeSpec(one) if isinstance(one, str) else one for one in self.nodes)

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.node_specs)

    @property
    def ipv4(self) -> bool:
        return self.ip_family != "ipv6"

    @property
    def ipv6(self) -> bool:
        return self.ip_family != "ipv4"


def file_of(path: Path) -> Path:
    """The lab's file: of a folder, its ``lab.yaml``."""
    return path / "lab.yaml" if path.is_dir() else path


def read(path: Path) -> Lab:
    """The lab of a file, or of a folder that holds a ``lab.yaml``."""
    path = file_of(path)
    try:
        documents = [one.body for one in parse_yaml(path.read_text(), once=True)]
    except OSError as error:
        raise ConfigError(f"cannot read the lab {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    except InvalidObject as error:
        raise ConfigError(f"{path}, {error}".replace(": not YAML:", " is not YAML:")) from error
    if len(documents) > 1:
        raise ConfigError(f"{path} holds {len(documents)} documents", hint="a lab is one")
    try:
        lab = parse(documents[0] if documents else None)
    except InvalidObject as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    found = tuple(str((path.parent / name).resolve()) for name in lab.manifests)
    for name, manifest in zip(lab.manifests, found, strict=True):
        if not Path(manifest).is_file():
            raise ConfigError(f"{path}: manifests: there is no file {name} beside it")
    return msgspec.structs.replace(lab, manifests=found)


def parse(document: Any) -> Lab:
    """A lab from what YAML gave; InvalidObject names the path of what is wrong."""
    try:
        lab = msgspec.convert(document if document is not None else {}, Lab)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise InvalidObject(path.rstrip("`").lstrip("."), problem) from error
    check(lab)
    return lab


def check(lab: Lab) -> None:
    """What the types do not say; InvalidObject at the first thing that is wrong."""
    if isinstance(lab.nodes, int) and not 1 <= lab.nodes <= NODES_MAX:
        raise InvalidObject("nodes", f"{lab.nodes} nodes are not possible", hint=f"1 to {NODES_MAX} are")
    if not 1 <= len(lab.node_names) <= NODES_MAX:
        raise InvalidObject("nodes", f"there must be 1 to {NODES_MAX} nodes, not {len(lab.node_names)}")
    if not 1280 <= lab.mtu <= 65535:
        raise InvalidObject("mtu", f"{lab.mtu} is not between 1280 and 65535")
    _check_name("name", lab.name, "sandbox name")
    taken: set[str] = set()
    for number, node in enumerate(lab.node_names):
        _take(f"nodes[{number}]", node, "node name", taken)
    addresses: set[str] = set()
    for number, world in enumerate(lab.worlds):
        _take(f"worlds[{number}].name", world.name, "name of a world", taken)
        _check_addresses(f"worlds[{number}]", world, addresses)
    for number, upstream in enumerate(lab.dns.upstreams):
        _address(f"dns.upstreams[{number}]", upstream)


def _check_addresses(path: str, world: World, taken: set[str]) -> None:
    if not world.addresses:
        raise InvalidObject(f"{path}.addresses", "a world needs an address", hint="for example 203.0.113.53")
    for number, address in enumerate(world.addresses):
        where = f"{path}.addresses[{number}]"
        _check_host(where, _address(where, address))
        if str(_address(where, address)) in taken:
            raise InvalidObject(where, f"{address} is used twice")
        taken.add(str(_address(where, address)))
    for number, port in enumerate(world.serve):
        if not 1 <= port <= 65535:
            raise InvalidObject(f"{path}.serve[{number}]", f"{port} is not a port")


def _check_host(path: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """One host's address, that others reach by a route."""
    reserved = str(address) == "255.255.255.255" or (address.version == 4 and address in THIS_NETWORK)
    for what, so in (
        ("multicast", address.is_multicast),
        ("unspecified", address.is_unspecified),
        ("a loopback address", address.is_loopback),
        ("link-local", address.is_link_local),
        ("reserved", reserved),
    ):
        if so:
            raise InvalidObject(
                path, f"{address} is {what}, no host's address", hint="for example 203.0.113.53"
            )


def _address(path: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidObject(path, f"“{text}” is not an IP address") from error


def _check_name(path: str, name: str, what: str) -> None:
    try:
        check_name(name, what)
    except PodwireError as error:
        raise InvalidObject(path, str(error), hint=error.hint) from error


def _take(path: str, name: str, what: str, taken: set[str]) -> None:
    _check_name(path, name, what)
    if name in RESERVED:
        raise InvalidObject(path, f"“{name}” is reserved", hint="take another, for example n1")
    if name in taken:
        raise InvalidObject(path, f"“{name}” is taken already")
    taken.add(name)


def changed(lab: Lab, given: dict[str, Any]) -> Lab:
    """`lab` with those of `given` that are not None; checked again."""
    result = msgspec.structs.replace(lab, **{key: value for key, value in given.items() if value is not None})
    try:
        check(result)
    except InvalidObject as error:
        raise ConfigError(str(error), hint=error.hint) from error
    return result
