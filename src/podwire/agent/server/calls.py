"""Handlers of Cilium's paths under /v1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any

import msgspec
from aiohttp import web

from podwire.agent.interface import DUMPS, EndpointRequest, Node
from podwire.agent.server import health, lists, shapes
from podwire.agent.server.routes import NODE, Answer, Route, body, number
from podwire.base.errors import InvalidObject, NotFound
from podwire.state.tables import EndpointRow

Text = Annotated[str, msgspec.Meta(max_length=4096)]
MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
DEVICE = re.compile(r"(?!\.\.?$)[^\s/:%]{1,15}")


class Pair(msgspec.Struct):
    ipv4: Text = ""
    ipv6: Text = ""


class EndpointChange(msgspec.Struct, rename="kebab"):
    """The members of EndpointChangeRequest that mean something here."""

    container_id: Text = ""
    container_netns_path: Text = ""
    container_interface_name: Text = "eth0"
    interface_name: Text = ""
    interface_index: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)] = 0
    k8s_namespace: Text = ""
    k8s_pod_name: Text = ""
    k8s_uid: Text = ""
    mac: Text = ""
    host_mac: Text = ""
    addressing: Pair | None = None


class Detachment(msgspec.Struct, rename="kebab"):
    container_id: Text = ""


async def healthz(node: Node, request: web.Request) -> Answer:
    """How the agent is; with header or query `brief=true` in one word."""
    brief = "true" in (request.headers.get("brief"), request.query.get("brief"))
    return Answer(health.healthz(node, brief=brief))


async def config(node: Node, _: web.Request) -> Answer:
    """What CNI plugins ask first: addressing, MTU, modes."""
    return Answer(health.config(node))


async def debuginfo(node: Node, _: web.Request) -> Answer:
    """Version, kernel, status, endpoints and services in one."""
    return Answer(health.debuginfo(node))


# --- addresses --------------------------------------------------------------------------------


async def allocate(node: Node, request: web.Request) -> Answer:
    """Allocate addresses for `owner` (`namespace/pod`) of `family` or of all the node has."""
    family, owner = request.query.get("family", ""), request.query.get("owner", "")
    if family not in ("", "ipv4", "ipv6"):
        raise InvalidObject("family", f"must be ipv4 or ipv6, not {family[:40]!r}")
    if not owner or len(owner) > 512 or not owner.isprintable():
        raise InvalidObject("owner", "must be given, as namespace/pod")
    given = await node.allocate(owner, family, request.headers.get("Expiration") == "true")
    addressing = health.addressing(node)
    answer = {
        "address": {
            "ipv4": given.ipv4,
            "ipv6": given.ipv6,
            "ipv4-pool-name": "default",
            "ipv6-pool-name": "default",
        },
        "host-addressing": addressing,
    }
    for name, address in (("ipv4", given.ipv4), ("ipv6", given.ipv6)):
        if address:
            answer[name] = {
                "ip": address,
                "gateway": addressing[name]["ip"],
                "cidrs": [addressing[name]["alloc-range"]],
                "expiration-uuid": given.expires,
            }
    return Answer(answer, 201)


async def release(node: Node, request: web.Request) -> Answer:
    """Give an address back."""
    text = request.match_info["ip"]
    try:
        address = str(ip_address(text))
    except ValueError as error:
        raise InvalidObject("ip", f"{text[:60]!r} is no address") from error
    await node.release(address)
    return Answer(None)


# --- endpoints --------------------------------------------------------------------------------


async def endpoints(node: Node, request: web.Request) -> Answer:
    """All endpoints, or those with the labels in the body."""
    rows = sorted(node.tables.endpoints, key=lambda row: row.id)
    if request.can_read_body and (wanted := await body(request, list[str])):
        rows = [row for row in rows if set(wanted) <= set(row.labels)]
        if not rows:
            raise NotFound("no endpoint has these labels")
    return Answer(shapes.endpoints(node.tables, rows))


async def endpoint(node: Node, request: web.Request) -> Answer:
    """One endpoint, by number or `pod-name:`, `container-id:`, `cni-attachment-id:`, `ipv4:`, `ipv6:`."""
    row = find(node, request.match_info["id"])
    return Answer(shapes.endpoint(node.tables, row, shapes.Allowed(node.tables)))


async def endpoint_health(node: Node, request: web.Request) -> Answer:
    """How an endpoint is."""
    row = find(node, request.match_info["id"])
    return Answer(shapes.health(row, node.tables.endpoint_failures.get(row.id)))


async def endpoint_log(node: Node, request: web.Request) -> Answer:
    """What became of an endpoint."""
    row = find(node, request.match_info["id"])
    return Answer(shapes.log(row, node.tables.endpoint_failures.get(row.id)))


async def endpoint_labels(node: Node, request: web.Request) -> Answer:
    """The labels that make its identity."""
    row = find(node, request.match_info["id"])
    return Answer({"spec": {"user": []}, "status": shapes.labels(row)})


async def endpoint_config(node: Node, request: web.Request) -> Answer:
    """Its options (there are none)."""
    row = find(node, request.match_info["id"])
    return Answer(
        {"error": "", "immutable": {}, "realized": {"label-configuration": {}, "options": {}}, "id": row.id}
    )


async def attach(node: Node, request: web.Request) -> Answer:
    """Attach a pod; answers when packets may flow."""
    change = await body(request, EndpointChange)
    for name, value in (
        ("container-id", change.container_id),
        ("container-netns-path", change.container_netns_path),
        ("container-interface-name", change.container_interface_name),
        ("k8s-namespace", change.k8s_namespace),
        ("k8s-pod-name", change.k8s_pod_name),
    ):
        if not value or not value.isprintable():
            raise InvalidObject(name, "must be given")
    check_devices(change)
    addresses = change.addressing or Pair()
    row = await node.attach(
        EndpointRequest(
            container_id=change.container_id,
            netns=change.container_netns_path,
            interface=change.container_interface_name,
            namespace=change.k8s_namespace,
            pod=change.k8s_pod_name,
            uid=change.k8s_uid,
            ipv4=check_address("addressing.ipv4", addresses.ipv4, 4),
            ipv6=check_address("addressing.ipv6", addresses.ipv6, 6),
            mac=change.mac,
            host_interface=change.interface_name,
            host_mac=change.host_mac,
            ifindex=change.interface_index,
        )
    )
    return Answer(shapes.endpoint(node.tables, row, None), 201)


async def detach(node: Node, request: web.Request) -> Answer:
    """Detach the pod of the `container-id` in the body."""
    change = await body(request, Detachment)
    if not change.container_id:
        raise InvalidObject("container-id", "must be given")
    await node.detach(change.container_id)
    return Answer(None)


async def detach_one(node: Node, request: web.Request) -> Answer:
    """Detach one endpoint."""
    await node.detach(find(node, request.match_info["id"]).container_id)
    return Answer(None)


def check_devices(change: EndpointChange) -> None:
    """Names and hardware addresses, which become paths and bytes."""
    named = {"container-interface-name": change.container_interface_name}
    if change.interface_name:
        named["interface-name"] = change.interface_name
        if not change.interface_index:
            raise InvalidObject("interface-index", "must be given with interface-name")
        for name, text in (("mac", change.mac), ("host-mac", change.host_mac)):
            if not MAC.fullmatch(text):
                raise InvalidObject(name, f"{text[:60]!r} is no hardware address like 02:00:00:00:00:01")
    for name, text in named.items():
        if not DEVICE.fullmatch(text):
            raise InvalidObject(name, f"{text[:60]!r} is no name of a device")


def check_address(name: str, text: str, version: int) -> str:
    """Its canonical text, by which tables know it; empty stays empty."""
    try:
        found = ip_address(text) if text else None
    except ValueError as error:
        raise InvalidObject(name, f"{text[:60]!r} is no IPv{version} address") from error
    if found is None:
        return ""
    mapped = isinstance(found, IPv6Address) and (found.ipv4_mapped or found.scope_id is not None)
    if found.version != version or mapped:
        raise InvalidObject(name, f"{text[:60]!r} is no IPv{version} address of a pod")
    return str(found)


def find(node: Node, text: str) -> EndpointRow:
    """The endpoint that Cilium's id means: a number, or a prefix, a colon and a name."""
    table = node.tables.endpoints
    kind, colon, name = text.partition(":")
    if not colon:
        kind, name = "cilium-local", text
    rows: list[EndpointRow]
    match kind:
        case "cilium-local":
            row = table.get(number(name, "an endpoint", 65535))
            rows = [row] if row else []
        case "container-id":
            rows = table.by("container", name)
        case "cni-attachment-id":
            rows = table.by("container", name.rpartition(":")[0] or name)
        case "pod-name" | "cep-name":
            namespace, _, pod = name.replace(":", "/", 1).partition("/")
            rows = table.by("pod", (namespace, pod))
        case "ipv4" | "ipv6":
            rows = table.by("address", name)
        case _:
            raise InvalidObject("id", f"{kind[:40]!r} is no kind of endpoint id")
    if not rows:
        raise NotFound(f"there is no endpoint {text[:120]}", hint="`podwire endpoint list` shows all")
    return rows[0]


# --- what the tables say ----------------------------------------------------------------------


async def identities(node: Node, _: web.Request) -> Answer:
    """All identities this node knows."""
    return Answer(shapes.all_identities(node.tables))


async def identity(node: Node, request: web.Request) -> Answer:
    """One identity."""
    wanted = number(request.match_info["id"], "an identity", (1 << 32) - 1)
    shape = shapes.one_identity(node.tables, wanted)
    if shape is not None:
        return Answer(shape)
    raise NotFound(f"there is no identity {wanted}", hint="`podwire identity list` shows all")


async def ips(node: Node, _: web.Request) -> Answer:
    """Who is behind which address or prefix."""
    return Answer(map(shapes.ip, node.tables.ipcache))


async def services(node: Node, _: web.Request) -> Answer:
    """Service addresses and their backends."""
    return Answer(shapes.services(node.tables))


async def service(node: Node, request: web.Request) -> Answer:
    """One of them, by number."""
    wanted = number(request.match_info["id"], "a service", (1 << 32) - 1)
    for row in node.tables.frontends:
        if row.rev_nat == wanted:
            return Answer(shapes.service(node.tables, row))
    raise NotFound(f"there is no service {wanted}", hint="`podwire service list` shows all")


async def nodes(node: Node, _: web.Request) -> Answer:
    """The nodes of the cluster."""
    cluster = node.config.cluster_name
    added = [shapes.node(row, cluster) for row in node.tables.nodes]
    return Answer(
        {
            "client-id": 0,
            "self": f"{cluster}/{node.config.node_name}",
            "nodes-added": added,
            "nodes-removed": [],
        }
    )


async def policy(node: Node, _: web.Request) -> Answer:
    """All policies, with the revision that is wanted."""
    rows = [shapes.policy(row) for row in node.tables.policies]
    return Answer(
        {"revision": 1 + node.tables.policies.revision, "policy": msgspec.json.encode(rows).decode()}
    )


async def selectors(node: Node, _: web.Request) -> Answer:
    """Selectors in use and the identities they select."""
    return Answer(map(shapes.selector, lists.rows(node.tables.selections)))


async def maps(node: Node, _: web.Request) -> Answer:
    """Names of the maps that can be shown."""
    return Answer({"maps": [{"path": f"{node.config.bpf_dir}/{name}", "cache": []} for name in DUMPS]})


async def one_map(request: web.Request) -> web.StreamResponse:
    """What one of them holds."""
    node, name = request.app[NODE], request.match_info["name"]
    head = b'{"path":' + msgspec.json.encode(f"{node.config.bpf_dir}/{name}") + b',"cache":['
    return await lists.send(request, lists.dumped(request), lists.Form(_cached, head, b"]}"))


def _cached(row: Mapping[str, Any]) -> Any:
    key, *_ = row.values()
    return {"key": str(key), "value": msgspec.json.encode(row).decode(), "desired-action": "sync"}


async def metrics(node: Node, _: web.Request) -> Answer:
    """All metrics with their values."""
    return Answer(shapes.metrics(node.metrics()))


ROUTES: list[Route] = [
    ("GET", "/v1/healthz", healthz),
    ("GET", "/v1/config", config),
    ("GET", "/v1/debuginfo", debuginfo),
    ("POST", "/v1/ipam", allocate),
    ("DELETE", "/v1/ipam/{ip}", release),
    ("GET", "/v1/endpoint", endpoints),
    ("DELETE", "/v1/endpoint", detach),
    ("GET", "/v1/endpoint/{id}", endpoint),
    ("PUT", "/v1/endpoint/{id}", attach),
    ("DELETE", "/v1/endpoint/{id}", detach_one),
    ("GET", "/v1/endpoint/{id}/healthz", endpoint_health),
    ("GET", "/v1/endpoint/{id}/log", endpoint_log),
    ("GET", "/v1/endpoint/{id}/labels", endpoint_labels),
    ("GET", "/v1/endpoint/{id}/config", endpoint_config),
    ("GET", "/v1/identity", identities),
    ("GET", "/v1/identity/{id}", identity),
    ("GET", "/v1/ip", ips),
    ("GET", "/v1/service", services),
    ("GET", "/v1/service/{id}", service),
    ("GET", "/v1/cluster/nodes", nodes),
    ("GET", "/v1/policy", policy),
    ("GET", "/v1/policy/selectors", selectors),
    ("GET", "/v1/map", maps),
    ("GET", "/v1/metrics", metrics),
]
