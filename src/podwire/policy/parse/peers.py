"""Peers that are no pods: prefixes and entities, as selectors of ``cidr:`` and ``reserved:`` labels."""

from __future__ import annotations

import ipaddress
from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model.labels import CLUSTER
from podwire.model.rule import Prefix
from podwire.model.selector import EVERYTHING, NOTHING, Operator, Selector, equals, exists, inside
from podwire.policy.parse.read import below, items, known, show, string
from podwire.policy.parse.selectors import selector

# Which reserved labels an entity means. An address outside the cluster is `world` where the cluster
# has IPv4 only, else world-ipv4 or world-ipv6.
ENTITIES: dict[str, tuple[str, ...]] = {
    "world": ("world", "world-ipv4", "world-ipv6"),
    "world-ipv4": ("world", "world-ipv4"),
    "world-ipv6": ("world-ipv6",),
    "host": ("host",),
    "remote-node": ("remote-node",),
    "kube-apiserver": ("kube-apiserver",),
    "init": ("init",),
    "health": ("health",),
    "unmanaged": ("unmanaged",),
    "ingress": ("ingress",),
    "cluster": ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"),
}

CIDR_GROUPS = {
    "cidrGroupRef": "CIDR groups are not supported yet",
    "cidrGroupSelector": "CIDR groups are not supported yet",
}


def entity(value: Any, path: str, cluster: str) -> list[Selector]:
    """Selectors of one of from/toEntities."""
    name = string(value, path)
    if name == "all":
        return [EVERYTHING]
    if name == "none":
        return [NOTHING]
    if name not in ENTITIES:
        hint = f"known: all, none, {', '.join(sorted(ENTITIES))}"
        raise InvalidObject(path, f"unknown entity {show(name)}", hint=hint)
    found = [Selector((exists("reserved", one),)) for one in ENTITIES[name]]
    if name == "cluster":
        found.append(Selector((equals("k8s", CLUSTER, cluster),)))
    return found


def cidr(value: Any, path: str, *, bare: bool) -> str:
    """A prefix in canonical form, bits after its length cleared; an address alone only if `bare`."""
    text = string(value, path)
    address, slash, bits = text.partition("/")
    if "%" in text or (slash and not (bits.isascii() and bits.isdigit() and len(bits) <= 3)):
        raise InvalidObject(path, f"{show(text)} is no CIDR", hint="write it like 10.0.0.0/8")
    if not slash and not bare:
        raise InvalidObject(path, f"{show(text)} has no prefix length", hint=f"for one address: {address}/32")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidObject(path, f"{show(text)} is no CIDR", hint="write it like 10.0.0.0/8") from error
    if (
        isinstance(network, ipaddress.IPv6Network)
        and network.network_address.ipv4_mapped
        and network.prefixlen >= 96
    ):
        raise InvalidObject(path, f"{show(text)} is IPv4 in IPv6 form", hint="write it as IPv4")
    return str(network)


def prefix(value: Any, path: str) -> Prefix:
    """One of from/toCIDRSet, or an ipBlock."""
    read = known(value, path, frozenset({"cidr", "except"}), CIDR_GROUPS)
    if read.get("cidr") is None:
        raise InvalidObject(path, "needs a cidr")
    whole = cidr(read["cidr"], below(path, "cidr"), bare=False)
    excepted = set()
    for element, at in items(read.get("except"), below(path, "except")):
        one = cidr(element, at, bare=False)
        if not _holds(whole, one):
            raise InvalidObject(at, f"{one} is not inside {whole}")
        excepted.add(one)
    return Prefix(whole, tuple(sorted(excepted)))


def _holds(outer: str, inner: str) -> bool:
    one, two = ipaddress.ip_network(outer), ipaddress.ip_network(inner)
    return one.version == two.version and one.prefixlen <= two.prefixlen and two.network_address in one


def prefix_selectors(one: Prefix) -> list[Selector]:
    """Who is meant by a prefix: never a pod or a node, these have identities that are no prefixes.

    A prefix of length zero is whatever is outside the cluster, also where no rule names a prefix.
    """
    if one.cidr in one.excepted:
        return [NOTHING]
    within, *without = sorted(
        inside(one.cidr, one.excepted), key=lambda term: term.operator is not Operator.EXISTS
    )
    if one.cidr == "0.0.0.0/0":
        return [selector(exists("reserved", name), *without) for name in ENTITIES["world-ipv4"]]
    if one.cidr == "::/0":
        return [selector(exists("reserved", name), *without) for name in ENTITIES["world-ipv6"]]
    return [selector(within, *without)]
