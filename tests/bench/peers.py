"""What podwire is compared with: plain kernel paths and kube-proxy's rules, in own namespaces.

Each peer is a client and a server, most with a node's namespace between them, as pods have:

    client 10.9.1.2 ── 10.9.1.1 [node] 10.9.2.1 ── 10.9.2.2, 10.9.2.3 server

or, across nodes, a node's namespace for each, with a bridge between them as a sandbox has:

    client 10.9.1.2 ── [node 10.9.9.1] ── bridge ── [node 10.9.9.2] ── 10.9.2.2, 10.9.2.3 server

Services are rules in the node's namespace, shaped as kube-proxy writes them: a dispatch to a
chain per service, a random pick there, a chain per endpoint with the DNAT, masquerade marks,
and the forward chain's rules. The service that is measured stands in the middle of the others,
because iptables tries them in order and a real service is as often early as late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from namespaces import NETBENCH, Namespace, run

PORT = 5000
CLIENT, SERVERS = "10.9.1.2", ("10.9.2.2", "10.9.2.3")
SERVICE_PORT = 80
UNDERLAY_MTU, VXLAN_OVERHEAD = 1500, 50  # as a sandbox has them
ROUTED_ACROSS, VXLAN_ACROSS = "routed veth, two nodes", "kernel VXLAN, two nodes"
# Of the two variants the one whose rules run faster (measured: connect 1.73 against 1.95 × at 1,000
# services) and that loads 10,000 services in a second, not in minutes.
IPTABLES_RESTORE = "iptables-legacy-restore"


class Peer(Protocol):
    """A client and a place it can reach the server at."""

    name: str

    def command(self, mode: str, count: int) -> list[str]:
        """The command line that measures `mode` once."""
        ...

    def close(self) -> None: ...


@dataclass
class NamespacePeer:
    """A peer made of namespaces that belong to it."""

    name: str
    client: Namespace
    address: str
    port: int
    spaces: list[Namespace] = field(default_factory=list)
    beside: list[Namespace] = field(default_factory=list)

    def command(self, mode: str, count: int) -> list[str]:
        return self.client.inside(str(NETBENCH), mode, self.address, str(self.port), str(count))

    def close(self) -> None:
        for space in [*self.spaces, *self.beside]:
            space.close()


def loopback() -> NamespacePeer:
    """Client and server in one namespace: what a node would give without pods."""
    space = Namespace.create()
    space.serve("127.0.0.1", PORT)
    return NamespacePeer("loopback", space, "127.0.0.1", PORT, [space])


def bridge() -> NamespacePeer:
    """Two veths on one bridge, as simple container networks are."""
    client, node, server = spaces = [Namespace.create() for _ in range(3)]
    node.ip("link add br0 type bridge", "link set br0 up")
    for space, name, addresses in ((client, "c", ("10.9.2.1",)), (server, "s", SERVERS)):
        _veth(space, node, name, addresses)
        node.ip(f"link set {name} master br0 up")
    _serve(server)
    return NamespacePeer("bridge", client, SERVERS[0], PORT, spaces)


def routed(name: str = "routed veth") -> NamespacePeer:
    """Two veths and the node's routing between them, no rules at all."""
    client, node, server = spaces = [Namespace.create() for _ in range(3)]
    node.sysctl(net__ipv4__ip_forward=1)
    for space, device, gateway, addresses in (
        (client, "c", "10.9.1.1", (CLIENT,)),
        (server, "s", "10.9.2.1", SERVERS),
    ):
        _veth(space, node, device, addresses)
        node.ip(f"addr add {gateway}/24 dev {device}", f"link set {device} up")
        space.ip(f"route add default via {gateway}")
    _serve(server)
    return NamespacePeer(name, client, SERVERS[0], PORT, spaces)


def routed_across() -> NamespacePeer:
    """Two nodes that route to each other's pods, no rules at all."""
    peer = _across(ROUTED_ACROSS)
    for number, node in enumerate(peer.spaces[2:], 1):
        other = 3 - number
        node.ip(f"route add 10.9.{other}.0/24 via 10.9.9.{other}")
    return peer


def vxlan_across() -> NamespacePeer:
    """The same by way of the kernel's VXLAN device, each node knowing the other's."""
    peer = _across(VXLAN_ACROSS)
    for space in peer.spaces[:2]:
        space.ip(f"link set eth0 mtu {UNDERLAY_MTU - VXLAN_OVERHEAD}")
    for number, node in enumerate(peer.spaces[2:], 1):
        other = 3 - number
        node.ip(
            f"link add vx0 address 02:00:00:00:99:0{number} mtu {UNDERLAY_MTU - VXLAN_OVERHEAD} type vxlan "
            f"id 1 dstport 8472 local 10.9.9.{number} nolearning",
            f"addr add 10.9.8.{number}/24 dev vx0",
            "link set vx0 up",
            f"neigh add 10.9.8.{other} lladdr 02:00:00:00:99:0{other} dev vx0 nud permanent",
        )
        run(
            node.inside(
                "bridge", "fdb", "add", f"02:00:00:00:99:0{other}", "dev", "vx0", "dst", f"10.9.9.{other}"
            )
        )
        node.ip(f"route add 10.9.{other}.0/24 via 10.9.8.{other}")
    return peer


def _across(name: str) -> NamespacePeer:
    """Client, server, their nodes and a bridge between these; nobody knows a way to the other's pods."""
    client, server, first, second, underlay = [Namespace.create() for _ in range(5)]
    underlay.ip("link add br0 type bridge", "link set br0 up")
    for number, (node, space, pods) in enumerate(((first, client, (CLIENT,)), (second, server, SERVERS)), 1):
        node.sysctl(net__ipv4__ip_forward=1)
        _veth(node, underlay, f"n{number}", (f"10.9.9.{number}",))
        underlay.ip(f"link set n{number} master br0 up")
        _veth(space, node, "pod", pods)
        node.ip(f"addr add 10.9.{number}.1/24 dev pod", "link set pod up")
        space.ip(f"route add default via 10.9.{number}.1")
    _serve(server)
    peer = NamespacePeer(name, client, SERVERS[0], PORT, [client, server, first, second])
    peer.beside.append(underlay)
    return peer


def iptables(services: int) -> NamespacePeer:
    """kube-proxy's iptables mode with this many services."""
    peer = routed(f"iptables {short(services)}")
    node = peer.spaces[1]
    run(node.inside(IPTABLES_RESTORE, "--noflush"), text="\n".join(iptables_rules(services)) + "\n")
    peer.address, peer.port = service_address(services // 2), SERVICE_PORT
    return peer


def nftables(services: int) -> NamespacePeer:
    """kube-proxy's nftables mode with this many services."""
    peer = routed(f"nftables {short(services)}")
    node = peer.spaces[1]
    run(node.inside("nft", "-f", "-"), text="\n".join(nftables_rules(services)) + "\n")
    peer.address, peer.port = service_address(services // 2), SERVICE_PORT
    return peer


def service_address(number: int) -> str:
    return f"10.96.{number >> 8}.{number & 255}"


def iptables_rules(services: int) -> Iterator[str]:
    """Input of iptables-restore."""
    yield "*nat"
    yield from (f":{chain} - [0:0]" for chain in ("KUBE-SERVICES", "KUBE-MARK-MASQ", "KUBE-POSTROUTING"))
    for number in range(services):
        yield f":KUBE-SVC-{number:05} - [0:0]"
        yield from (f":KUBE-SEP-{number:05}-{end} - [0:0]" for end in range(len(SERVERS)))
    yield "-A PREROUTING -j KUBE-SERVICES"
    yield "-A OUTPUT -j KUBE-SERVICES"
    yield "-A POSTROUTING -j KUBE-POSTROUTING"
    yield "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"
    yield "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000"
    yield "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
    for number in range(services):
        for protocol in _protocols(number, services):
            to = f"-d {service_address(number)}/32 -p {protocol} -m {protocol} --dport {SERVICE_PORT}"
            chain = f"KUBE-SVC-{number:05}"
            yield f"-A KUBE-SERVICES {to} -j {chain}"
            yield f"-A {chain} ! -s 10.9.0.0/16 {to} -j KUBE-MARK-MASQ"
            for end, address in enumerate(SERVERS):
                pick = "" if end == len(SERVERS) - 1 else "-m statistic --mode random --probability 0.5"
                yield f"-A {chain} -p {protocol} {pick} -j KUBE-SEP-{number:05}-{end}"
                yield f"-A KUBE-SEP-{number:05}-{end} -s {address}/32 -j KUBE-MARK-MASQ"
                yield (
                    f"-A KUBE-SEP-{number:05}-{end} -p {protocol} -m {protocol} "
                    f"-j DNAT --to-destination {address}:{PORT}"
                )
    yield "COMMIT"
    yield "*filter"
    yield ":KUBE-FORWARD - [0:0]"
    yield "-A FORWARD -j KUBE-FORWARD"
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "COMMIT"


def nftables_rules(services: int) -> Iterator[str]:
    """Input of `nft -f`.

    The services that are not measured lead to one chain: no packet goes there, and the kernel
    takes a minute to accept 30,000 chains.
    """
    measured = services // 2
    members = [
        f"{service_address(number)} . tcp . {SERVICE_PORT} : goto service-other"
        for number in range(services)
        if number != measured
    ]
    yield "table ip kube-proxy {"
    yield "chain mark-for-masquerade { mark set mark or 0x4000; }"
    yield "chain service-other { drop; }"
    for protocol in ("tcp", "udp"):
        to = f"ip daddr {service_address(measured)} {protocol} dport {SERVICE_PORT}"
        members.append(f"{service_address(measured)} . {protocol} . {SERVICE_PORT} : goto service-{protocol}")
        picks = ", ".join(f"{end} : goto endpoint-{protocol}-{end}" for end in range(len(SERVERS)))
        for end, address in enumerate(SERVERS):
            yield f"chain endpoint-{protocol}-{end} {{"
            yield f"ip saddr {address} jump mark-for-masquerade"
            yield f"meta l4proto {protocol} dnat to {address}:{PORT}"
            yield "}"
        yield f"chain service-{protocol} {{"
        yield f"{to} ip saddr != 10.9.0.0/16 jump mark-for-masquerade"
        yield f"numgen random mod {len(SERVERS)} vmap {{ {picks} }}"
        yield "}"
    yield "map service-ips { type ipv4_addr . inet_proto . inet_service : verdict"
    yield f"elements = {{ {', '.join(members)} }} }}"
    yield "chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }"
    yield "chain prerouting { type nat hook prerouting priority dstnat; jump services; }"
    yield "chain output { type nat hook output priority -100; jump services; }"
    yield "chain postrouting { type nat hook postrouting priority srcnat;"
    yield "mark and 0x4000 == 0 return; masquerade; }"
    yield "chain forward { type filter hook forward priority -110; ct state invalid drop; }"
    yield "}"


def _protocols(number: int, services: int) -> tuple[str, ...]:
    """The measured service answers UDP too; the others are TCP, as most are."""
    return ("tcp", "udp") if number == services // 2 else ("tcp",)


def _veth(space: Namespace, node: Namespace, name: str, addresses: tuple[str, ...]) -> None:
    node.ip(f"link add {name} type veth peer name eth0 netns {space.pid}")
    space.ip(*(f"addr add {address}/24 dev eth0" for address in addresses), "link set eth0 up")


def _serve(server: Namespace) -> None:
    # One server per address: a datagram's answer must come from where it was sent to.
    for address in SERVERS:
        server.serve(address, PORT)


def short(number: int) -> str:
    return f"{number // 1000}k" if number % 1000 == 0 else str(number)


# name → how it is made; the first is what the others are divided by.
PEERS: dict[str, Callable[[], NamespacePeer]] = {
    "routed veth": routed,
    "bridge": bridge,
    "loopback": loopback,
    ROUTED_ACROSS: routed_across,
    VXLAN_ACROSS: vxlan_across,
    **{f"iptables {short(n)}": lambda n=n: iptables(n) for n in (100, 1000, 10000)},  # type: ignore[misc]
    **{f"nftables {short(n)}": lambda n=n: nftables(n) for n in (100, 1000, 10000)},  # type: ignore[misc]
}
