"""Slices and network policies; services are beside this."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from podwire.apiserver.kinds import Strategy
from podwire.apiserver.status import FieldError, forbidden_field, required
from podwire.apiserver.strategies.policies import enforceable
from podwire.apiserver.strategies.selectors import selector_valid

Object = dict[str, Any]


class EndpointSlices(Strategy):
    generation = True

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        family = body["addressType"]
        if old is not None and old["addressType"] != family:
            yield FieldError("addressType", "field is immutable", value=family)
        for index, endpoint in enumerate(body.get("endpoints") or []):
            for place, address in enumerate(endpoint.get("addresses") or []):
                if family != "FQDN" and not _is_address(address, family):
                    path = f"endpoints[{index}].addresses[{place}]"
                    yield FieldError(path, f"must be an {family} address", value=address)


class EndpointsStrategy(Strategy):
    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        for index, subset in enumerate(body.get("subsets") or []):
            for kind in ("addresses", "notReadyAddresses"):
                for place, one in enumerate(subset.get(kind) or []):
                    if not (_is_address(one["ip"], "IPv4") or _is_address(one["ip"], "IPv6")):
                        path = f"subsets[{index}].{kind}[{place}].ip"
                        yield FieldError(path, "must be a valid IP address", value=one["ip"])


class NetworkPolicies(Strategy):
    generation = True

    def default(self, body: Object) -> None:
        spec = body.get("spec")
        if spec is None:
            return
        spec.setdefault("podSelector", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        spec = body.get("spec") or {}
        yield from selector_valid("spec.podSelector", spec.get("podSelector"))
        for index, one in enumerate(spec.get("policyTypes") or []):
            if one not in ("Ingress", "Egress"):
                detail = 'supported values: "Ingress", "Egress"'
                path = f"spec.policyTypes[{index}]"
                yield FieldError(path, detail, reason="FieldValueNotSupported", value=one)
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(spec.get(direction) or []):
                path = f"spec.{direction}[{index}]"
                for place, peer in enumerate(rule.get(peers) or []):
                    yield from _peer(peer, f"{path}.{peers}[{place}]")
                for place, port in enumerate(rule.get("ports") or []):
                    yield from _port(port, f"{path}.ports[{place}]")
        yield from enforceable("NetworkPolicy", body)


def _peer(peer: Object, path: str) -> Iterator[FieldError]:
    block = peer.get("ipBlock")
    selecting = [name for name in ("podSelector", "namespaceSelector") if name in peer]
    if block is None and not selecting:
        yield required(path, "must specify a peer")
    if block is not None and selecting:
        yield forbidden_field(path, "may not specify both ipBlock and another peer")
    for name in selecting:
        yield from selector_valid(f"{path}.{name}", peer[name])
    if block is None:
        return
    outer = _network(block["cidr"])
    if outer is None:
        yield FieldError(
            f"{path}.ipBlock.cidr", "must be a valid CIDR value (e.g. 10.0.0.0/8)", value=block["cidr"]
        )
        return
    for index, one in enumerate(block.get("except") or []):
        inner = _network(one)
        if inner is None:
            yield FieldError(f"{path}.ipBlock.except[{index}]", "must be a valid CIDR value", value=one)
        elif inner.version != outer.version or not inner.subnet_of(outer) or inner == outer:  # type: ignore[arg-type]
            detail = f"must be a strict subset of `cidr` {block['cidr']}"
            yield FieldError(f"{path}.ipBlock.except[{index}]", detail, value=one)


def _port(port: Object, path: str) -> Iterator[FieldError]:
    number, end = port.get("port"), port.get("endPort")
    if isinstance(number, int) and not 1 <= number <= 65535:
        yield FieldError(f"{path}.port", "must be between 1 and 65535, inclusive", value=number)
    if isinstance(number, str) and (not number or len(number) > 15):
        yield FieldError(f"{path}.port", "must be a port name of at most 15 characters", value=number)
    if end is not None:
        if not isinstance(number, int):
            yield FieldError(f"{path}.endPort", "may be given only with a numeric port", value=end)
        elif end < number:
            yield FieldError(f"{path}.endPort", "must be greater than or equal to `port`", value=end)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_address(text: str, family: str) -> bool:
    try:
        return f"IPv{ipaddress.ip_address(text).version}" == family
    except ValueError:
        return False
