"""Services: families, addresses and node ports are given here, when the object is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podwire.apiserver.kinds import Cluster, Strategy
from podwire.apiserver.metadata import is_label, is_resolvable, labels_valid
from podwire.apiserver.status import FieldError, forbidden_field, invalid, required

Object = dict[str, Any]
_NODE_PORTS = ("NodePort", "LoadBalancer")


class Services(Strategy):
    def default(self, body: Object) -> None:
        spec = body.setdefault("spec", {})
        kind = spec.get("type") or "ClusterIP"
        for port in spec.get("ports") or []:
            if port.get("targetPort") in (None, "", 0):
                port["targetPort"] = port["port"]
        if spec.get("sessionAffinity") == "ClientIP":
            spec.setdefault("sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}})
        else:
            spec.pop("sessionAffinityConfig", None)
        if kind != "ExternalName":
            spec.setdefault("internalTrafficPolicy", "Cluster")
        if kind in _NODE_PORTS:
            spec.setdefault("externalTrafficPolicy", "Cluster")
        elif not spec.get("externalIPs"):
            spec.pop("externalTrafficPolicy", None)
        if kind == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
        else:
            spec.pop("allocateLoadBalancerNodePorts", None)

    def create(self, body: Object, cluster: Cluster) -> None:
        self._allocate(body, None, cluster)
        body["status"] = {"loadBalancer": {}}

    def update(self, body: Object, old: Object, cluster: Cluster) -> None:
        spec, before = body["spec"], old["spec"]
        if spec.get("type") != "ExternalName":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                if name in before and not spec.get(name):
                    spec[name] = before[name]
        known = {
            (one.get("name", ""), one.get("protocol"), one["port"]): one for one in before.get("ports") or []
        }
        for port in spec.get("ports") or []:
            was = known.get((port.get("name", ""), port.get("protocol"), port["port"]))
            if was and was.get("nodePort") and not port.get("nodePort") and spec.get("type") in _NODE_PORTS:
                port["nodePort"] = was["nodePort"]
        self._allocate(body, old, cluster)

    def _allocate(self, body: Object, old: Object | None, cluster: Cluster) -> None:
        errors = list(self._plain(body, old))
        try:
            if not errors:
                _addresses(body, cluster)
                _node_ports(body, cluster)
        except FieldError as error:
            errors.append(error)
        if errors:
            raise invalid("Service", "", body["metadata"]["name"], errors)

    def _plain(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        spec = body["spec"]
        kind, ports = spec.get("type"), spec.get("ports") or []
        headless = spec.get("clusterIP") == "None"
        if not ports and not headless and kind != "ExternalName":
            yield required("spec.ports")
        yield from labels_valid("spec.selector", spec.get("selector"))
        yield from _ports(ports, kind)
        if kind == "ExternalName" and not is_resolvable((spec.get("externalName") or "").rstrip(".")):
            yield FieldError(
                "spec.externalName",
                "must be a DNS name, each label at most 63 characters",
                value=spec.get("externalName", ""),
            )
        if headless and kind in _NODE_PORTS:
            yield FieldError(
                "spec.clusterIPs[0]", f"may not be set to 'None' for {kind} services", value="None"
            )
        if (
            kind == "ExternalName"
            and spec.get("clusterIP")
            and (old is None or old["spec"].get("type") == kind)
        ):
            yield forbidden_field("spec.clusterIPs", "may not be set for ExternalName services")
        ips = spec.get("clusterIPs") or []
        if spec.get("clusterIP") and ips and ips[0] != spec["clusterIP"]:
            yield FieldError("spec.clusterIPs", "first value must match `clusterIP`", value=str(ips))
        was = (old or {}).get("spec", {})
        if (
            was.get("clusterIP")
            and kind != "ExternalName"
            and spec.get("clusterIP") not in (was["clusterIP"], "", None)
        ):
            yield FieldError("spec.clusterIPs[0]", "may not change once set", value=spec["clusterIP"])


def _ports(ports: list[Object], kind: str) -> Iterator[FieldError]:
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name", "")
        if len(ports) > 1 and not name:
            yield required(f"{path}.name")
        elif name and not is_label(name):
            yield FieldError(f"{path}.name", "must be a DNS label", value=name)
        if name and name in names:
            yield FieldError(f"{path}.name", "is there already", reason="FieldValueDuplicate", value=name)
        names.add(name)
        number = (port["port"], port.get("protocol", "TCP"))
        if number in numbers:
            shown = f"{number[0]}/{number[1]}"
            yield FieldError(path, "is there already", reason="FieldValueDuplicate", value=shown)
        numbers.add(number)
        target = port.get("targetPort")
        if isinstance(target, int) and not 1 <= target <= 65535:
            yield FieldError(f"{path}.targetPort", "must be between 1 and 65535, inclusive", value=target)
        if isinstance(target, str) and (len(target) > 15 or not is_label(target) or target.isdigit()):
            yield FieldError(
                f"{path}.targetPort", "must be a port name of at most 15 characters", value=target
            )
        if port.get("nodePort") and kind not in _NODE_PORTS:
            yield forbidden_field(f"{path}.nodePort", f"may not be used when `type` is '{kind}'")


def _addresses(body: Object, cluster: Cluster) -> None:
    """Decide families, keep or allocate one address for each."""
    spec, meta = body["spec"], body["metadata"]
    if spec["type"] == "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(name, None)
        return
    allocations = cluster.allocations
    families = _families(spec, allocations.families)
    spec["ipFamilies"] = families
    spec["ipFamilyPolicy"] = spec.get("ipFamilyPolicy") or "SingleStack"
    wished = [one for one in (spec.get("clusterIPs") or [spec.get("clusterIP") or ""]) if one]
    if wished == ["None"]:
        spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
        return
    owner = (meta["namespace"], meta["name"])
    chosen = []
    for index, family in enumerate(families):
        wish = next((one for one in wished if (":" in one) == (family == "IPv6")), "")
        if wish:
            allocations.claim(wish, owner, f"spec.clusterIPs[{index}]")
        chosen.append(wish or allocations.address(family))
    if stray := [one for one in wished if one not in chosen]:
        raise FieldError("spec.clusterIPs", f"does not fit ipFamilies {', '.join(families)}", value=stray[0])
    spec["clusterIP"], spec["clusterIPs"] = chosen[0], chosen


def _families(spec: Object, available: list[str]) -> list[str]:
    policy = spec.get("ipFamilyPolicy") or "SingleStack"
    wished = list(spec.get("ipFamilies") or [])
    for index, family in enumerate(wished):
        if family not in available:
            detail = "not configured on this cluster"
            raise FieldError(f"spec.ipFamilies[{index}]", detail, value=family)
    if not wished:
        address = spec.get("clusterIP") or ""
        first = "IPv6" if ":" in address else "IPv4" if address not in ("", "None") else available[0]
        wished = [first]
    if len(set(wished)) != len(wished):
        raise FieldError("spec.ipFamilies", "may not contain a family twice", value=str(wished))
    if policy == "RequireDualStack" and len(available) < 2:
        detail = "this cluster is not configured for dual-stack services"
        raise FieldError("spec.ipFamilyPolicy", detail, value=policy)
    if policy == "SingleStack":
        return wished[:1]
    return [*wished, *(one for one in available if one not in wished)]


def _node_ports(body: Object, cluster: Cluster) -> None:
    spec, meta = body["spec"], body["metadata"]
    ports = spec.get("ports") or []
    wanted = spec["type"] == "NodePort" or (
        spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
    )
    owner = (meta["namespace"], meta["name"])
    given = {port["nodePort"] for port in ports if port.get("nodePort")}
    for index, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        if port.get("nodePort"):
            cluster.allocations.claim_port(port["nodePort"], protocol, owner, f"spec.ports[{index}].nodePort")
        elif wanted:
            port["nodePort"] = cluster.allocations.port(protocol, given)
            given.add(port["nodePort"])
        else:
            port.pop("nodePort", None)
