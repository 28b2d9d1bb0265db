"""Random small worlds: pods, labels, policies, and packets between them.

A world is made from a number (`World.of(seed)`) and is the same on every machine. It knows three
answers to "may this packet pass?": the language's definition (`expected`), the compiled tables looked
up as the kernel does (`Compiled.verdict`), and whoever has a kernel can ask it for the third.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from podwire.abi.enums import PolicyVerdict
from podwire.model import identity, labels
from podwire.model.decide import Decision, decide
from podwire.model.labels import Labels
from podwire.model.rule import Clause, Direction, Effect, Rule
from podwire.model.selector import Selector
from podwire.policy.flatten import Cell
from podwire.policy.number import Registry
from podwire.policy.parse import parse
from podwire.policy.resolve import (
    Policy,
    Prepared,
    Tabulated,
    default_deny_content,
    obeyed,
    prepare,
    rule_content,
    select,
)

NAMESPACES = {"a": {"team": "red"}, "b": {"team": "blue"}}
APPS = ("web", "db", "job")
TIERS = ("front", "back")
PORT_NAMES = ("http", "admin")
PREFIXES = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.168.0.0/16", "0.0.0.0/0")
PREFIXES6 = ("fd00::/8", "fd00:1::/32", "fd00:1::5/128", "::/0")
ADDRESSES = (
    "10.0.0.1", "10.1.0.1", "10.1.2.3", "10.1.2.4", "10.2.0.0", "192.168.0.1", "8.8.8.8",
    "fd00::1", "fd00:1::5", "fd00:1::6", "2001:db8::1",
)  # fmt: skip
RESERVED = (identity.HOST, identity.REMOTE_NODE, identity.KUBE_APISERVER, identity.UNMANAGED)
ENTITIES = (
    "all", "world", "cluster", "host", "remote-node", "kube-apiserver", "init", "health",
    "unmanaged", "ingress", "none", "world-ipv4", "world-ipv6",
)  # fmt: skip
PROXIES = (1, 10080, 65535)
ICMP = (1, 58)
PROTOCOLS = (6, 17, 132, *ICMP)
ICMP_TYPES = (0x0000, 0x0800, 0x2A00, 0x8000, 0xFF00)
PORTS = (0, 53, 79, 80, 81, 443, 1023, 1024, 8080, 8443, 32768, 65535)


@dataclass(frozen=True)
class Pod:
    """A pod, its identity's number and labels, its named ports."""

    namespace: str
    name: str
    identity: int
    labels: Labels
    ports: dict[str, frozenset[tuple[int, int]]]


@dataclass(frozen=True)
class Peer:
    """Who is at the other end. `labels` None: nothing is known of it; `address` only of the world."""

    identity: int
    labels: Labels | None
    address: str = ""
    ports: dict[str, frozenset[tuple[int, int]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Packet:
    """`port` is the destination's; ICMP's type in its high byte."""

    pod: Pod
    direction: Direction
    peer: Peer
    protocol: int
    port: int


class World:
    """Pods and policy objects, as the API has them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.pods = [self._pod(number) for number in range(self.random.randint(2, 4))]
        self.objects = [self._object(number) for number in range(self.random.randint(1, 4))]
        parsed = [rule for one in self.objects for rule in parse(one)]
        assert not any(clause.redirect for rule in parsed for clause in rule.clauses), "no object says so yet"
        # So some of what is allowed is made to be so through a proxy.
        self.proxies = random.Random(seed + 1).choice((0.0, 0.6, 0.9))
        self.rules: tuple[Rule, ...] = tuple(map(self._redirected, parsed))
        self.peers = self._peers()

    @classmethod
    def of(cls, seed: int) -> World:
        return cls(seed)

    # --- pods

    def _pod(self, number: int) -> Pod:
        namespace = self.random.choice(list(NAMESPACES))
        own = {"app": self.random.choice(APPS)}
        if self.random.random() < 0.5:
            own["tier"] = self.random.choice(TIERS)
        found = labels.of_pod(
            own,
            namespace=namespace,
            namespace_labels=NAMESPACES[namespace] | {"kubernetes.io/metadata.name": namespace},
            service_account=f"account{number}",  # so that each pod is an identity of its own
            cluster="default",
        )
        ports = {
            name: frozenset({(self.random.choice((6, 17)), self.random.choice((80, 8080)))})
            for name in PORT_NAMES
            if self.random.random() < 0.5
        }
        # The bits of a cluster's number are to get through wherever an identity does.
        cluster = random.Random(f"{self.seed} pod{number}").choice((0, 0, 1, 255))
        numbers = identity.of_cluster(cluster)
        return Pod(namespace, f"pod{number}", numbers[1000 + number], found, ports)

    # --- policies

    def _object(self, number: int) -> dict[str, Any]:
        kind = self.random.choice(
            ["CiliumNetworkPolicy"] * 3 + ["CiliumClusterwideNetworkPolicy", "NetworkPolicy"]
        )
        metadata = {"name": f"policy{number}", "namespace": self.random.choice(list(NAMESPACES))}
        if kind == "CiliumClusterwideNetworkPolicy":
            del metadata["namespace"]
        spec = self._kubernetes_spec() if kind == "NetworkPolicy" else self._cilium_spec()
        return {"kind": kind, "metadata": metadata, "spec": spec}

    def _selector(self, prefix: str = "") -> dict[str, Any]:
        choice = self.random.random()
        if choice < 0.3:
            return {}
        if choice < 0.8:
            return {"matchLabels": {f"{prefix}app": self.random.choice(APPS)}}
        key = self.random.choice(("app", "tier"))
        operator = self.random.choice(("In", "NotIn", "Exists", "DoesNotExist"))
        values = [self.random.choice(APPS + TIERS)] if operator in ("In", "NotIn") else []
        return {"matchExpressions": [{"key": prefix + key, "operator": operator, "values": values}]}

    def _peer_selector(self) -> dict[str, Any]:
        found = self._selector(self.random.choice(("", "k8s:")))
        if self.random.random() < 0.3:
            key = "k8s:io.kubernetes.pod.namespace"
            found.setdefault("matchLabels", {})[key] = self.random.choice(list(NAMESPACES))
        return found

    def _prefix(self) -> dict[str, Any]:
        known = PREFIXES if self.random.random() < 0.7 else PREFIXES6
        whole = ipaddress.ip_network(self.random.choice(known))
        inside = [one for one in known if ipaddress.ip_network(one).subnet_of(whole)]  # type: ignore[arg-type]
        chosen = self.random.sample(inside, self.random.randint(0, min(2, len(inside))))
        return {"cidr": str(whole), "except": chosen}

    def _cilium_spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"endpointSelector": self._selector()}
        for section in self.random.sample(
            ("ingress", "ingressDeny", "egress", "egressDeny"), self.random.randint(1, 3)
        ):
            spec[section] = [self._entry(section) for _ in range(self.random.randint(1, 2))]
        if self.random.random() < 0.3:
            spec["enableDefaultDeny"] = {
                direction: self.random.random() < 0.5
                for direction in self.random.sample(("ingress", "egress"), self.random.randint(1, 2))
            }
        return spec

    def _entry(self, section: str) -> dict[str, Any]:
        side = "from" if section.startswith("ingress") else "to"
        entry: dict[str, Any] = {}
        choice = self.random.random()
        if choice < 0.4:
            entry[side + "Endpoints"] = [self._peer_selector() for _ in range(self.random.randint(0, 2))]
        elif choice < 0.6:
            entry[side + "CIDRSet"] = [self._prefix() for _ in range(self.random.randint(1, 2))]
        elif choice < 0.7:
            entry[side + "CIDR"] = [self.random.choice(PREFIXES + PREFIXES6)]
        elif choice < 0.85:
            entry[side + "Entities"] = self.random.sample(ENTITIES, self.random.randint(1, 2))
        choice = self.random.random()
        if choice < 0.6:
            entry["toPorts"] = [{"ports": [self._port() for _ in range(self.random.randint(1, 3))]}]
        elif choice < 0.7:
            family, types = self.random.choice((("IPv4", (0, 8, 255)), ("IPv6", (128, 42))))
            entry["icmps"] = [{"fields": [{"type": self.random.choice(types), "family": family}]}]
        return entry

    def _port(self) -> dict[str, Any]:
        choice = self.random.random()
        protocol = self.random.choice(("TCP", "UDP", "SCTP", "ANY"))
        if choice < 0.2:
            return {"port": self.random.choice(PORT_NAMES), "protocol": protocol}
        if choice < 0.3:
            return {"port": "0", "protocol": protocol}
        first = self.random.choice(PORTS[1:])
        if choice < 0.6:
            return {"port": str(first), "protocol": protocol}
        last = self.random.choice([port for port in PORTS if port >= first])
        return {"port": str(first), "endPort": last, "protocol": protocol}

    def _kubernetes_spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"podSelector": self._selector()}
        for direction, side in (("ingress", "from"), ("egress", "to")):
            if self.random.random() < 0.6:
                spec[direction] = [
                    {
                        side: [self._kubernetes_peer() for _ in range(self.random.randint(0, 2))],
                        "ports": [self._kubernetes_port() for _ in range(self.random.randint(0, 2))],
                    }
                    for _ in range(self.random.randint(0, 2))
                ]
        if self.random.random() < 0.5:
            spec["policyTypes"] = self.random.sample(("Ingress", "Egress"), self.random.randint(1, 2))
        return spec

    def _kubernetes_peer(self) -> dict[str, Any]:
        choice = self.random.random()
        if choice < 0.3:
            return {"ipBlock": self._prefix()}
        if choice < 0.6:
            return {"podSelector": self._selector()}
        found: dict[str, Any] = {
            "namespaceSelector": {}
            if choice < 0.8
            else {"matchLabels": {"team": self.random.choice(("red", "blue"))}}
        }
        if self.random.random() < 0.5:
            found["podSelector"] = self._selector()
        return found

    def _kubernetes_port(self) -> dict[str, Any]:
        choice = self.random.random()
        protocol = self.random.choice(("TCP", "UDP", "SCTP"))
        if choice < 0.2:
            return {"port": self.random.choice(PORT_NAMES), "protocol": protocol}
        if choice < 0.3:
            return {"protocol": protocol}
        first = self.random.choice(PORTS[1:])
        if choice < 0.6:
            return {"port": first, "protocol": protocol}
        return {"port": first, "endPort": self.random.choice([one for one in PORTS if one >= first])}

    def _redirected(self, rule: Rule) -> Rule:
        """With proxies for some of what it allows; of the rest nothing is another than without them."""
        chance = random.Random(f"{self.seed} {rule.origin} {rule.index}")
        clauses = [
            msgspec.structs.replace(clause, redirect=chance.choice(PROXIES))
            if clause.effect is Effect.ALLOW and chance.random() < self.proxies
            else clause
            for clause in rule.clauses
        ]
        return msgspec.structs.replace(rule, clauses=tuple(clauses))

    # --- packets

    def _peers(self) -> list[Peer]:
        """Everybody a packet may come from or go to."""
        found = [Peer(pod.identity, pod.labels, ports=pod.ports) for pod in self.pods]
        found += [Peer(one.number, one.labels) for one in identity.RESERVED if one.number in RESERVED]
        found += [Peer(0, outside(address), address) for address in ADDRESSES]
        return [*found, Peer(0, None)]

    def packet(self) -> Packet:
        """Another packet, mostly about what the policies say."""
        protocol = self.random.choice(PROTOCOLS)
        return Packet(
            self.random.choice(self.pods),
            self.random.choice(list(Direction)),
            self.random.choice(self.peers),
            protocol,
            self.random.choice(ICMP_TYPES if protocol in ICMP else PORTS),
        )

    def expected(self, packet: Packet) -> Decision:
        """By the definition of the language."""
        return decide(
            self.rules,
            packet.pod.labels,
            packet.direction,
            packet.peer.labels,
            packet.protocol,
            packet.port,
            named=packet.pod.ports if packet.direction is Direction.INGRESS else packet.peer.ports,
        )


@cache
def outside(address: str) -> Labels:
    """What the language may know of an address outside the cluster: exactly itself."""
    version = ipaddress.ip_address(address).version
    prefix = f"{address}/{32 if version == 4 else 128}"
    return labels.canonical({labels.cidr(prefix), f"reserved:world-ipv{version}"})


class Compiled:
    """A world as the kernel is given it: ipcache, classes of peers, and longest-prefix-match cells."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.identities: dict[int, Labels] = {one.number: one.labels for one in identity.RESERVED}
        self.identities |= {pod.identity: pod.labels for pod in world.pods}
        self.prefixes: dict[str, int] = {
            "0.0.0.0/0": identity.WORLD_IPV4,
            "::/0": identity.WORLD_IPV6,
        }
        named = {text for rule in world.rules for one in rule.prefixes for text in (one.cidr, *one.excepted)}
        for number, prefix in enumerate(sorted(named - self.prefixes.keys()), identity.LOCAL_FIRST):
            self.prefixes[prefix] = number
            self.identities[number] = labels.canonical(
                {labels.cidr(prefix), f"reserved:world-ipv{6 if ':' in prefix else 4}"}
            )
        self.numbers = Registry()
        self.selections: dict[Selector, frozenset[int]] = {}
        prepared = [
            prepare(rule, lambda clause, rule=rule: self.number_of(rule, clause)) for rule in world.rules
        ]  # type: ignore[misc]
        self.policies: dict[str, Policy] = {}
        self.tables: dict[int, Tabulated] = {}
        for pod in world.pods:
            self.policies[pod.name] = policy = self._policy(pod, prepared)
            self.tables[policy.number] = policy.tabulate(
                self.selected, {pod.identity: pod.ports for pod in world.pods}
            )

    def number_of(self, rule: Rule, clause: Clause | None, direction: Direction | None = None) -> int:
        if clause is None:
            assert direction is not None
            return self.numbers.take(default_deny_content([rule.origin], direction))
        content = rule_content(rule.origin, clause.direction, clause.effect, rule.index, clause.index)
        return self.numbers.take(content)

    def _policy(self, pod: Pod, prepared: list[Prepared]) -> Policy:
        chosen = obeyed(select(prepared, pod.labels))
        defaults = {
            direction: self.numbers.take(default_deny_content([one.rule.origin for one in chosen], direction))
            for direction in Direction
        }
        return Policy(chosen, pod.ports, defaults)

    def selected(self, selector: Selector) -> frozenset[int]:
        found = self.selections.get(selector)
        if found is None:
            found = frozenset(number for number, known in self.identities.items() if selector.matches(known))
            self.selections[selector] = found
        return found

    def identity_of(self, peer: Peer) -> int:
        """What the ipcache answers."""
        if not peer.address:
            return peer.identity
        holding = (prefix for prefix in self.prefixes if holds(prefix, peer.address))
        return self.prefixes[max(holding, key=lambda prefix: int(prefix.split("/")[1]))]

    def verdict(self, packet: Packet) -> Cell:
        """Both lookups, as the kernel makes them."""
        policy = self.policies[packet.pod.name]
        if not policy.enforced(packet.direction):
            return Cell(0, 0, 0, PolicyVerdict.ALLOW, 0, 0)
        table = self.tables[policy.number]
        peer_class = table.peers[packet.direction].get(self.identity_of(packet.peer), 0)
        return lookup(table.cells[packet.direction, peer_class], packet.protocol, packet.port)


@cache
def holds(prefix: str, address: str) -> bool:
    network, parsed = ipaddress.ip_network(prefix), ipaddress.ip_address(address)
    return network.version == parsed.version and parsed in network


def lookup(cells: tuple[Cell, ...], protocol: int, port: int) -> Cell:
    """What a longest-prefix-match finds."""
    matching = [
        cell
        for cell in cells
        if not cell.protocol
        or (cell.protocol == protocol and port >> (16 - cell.bits) == cell.port >> (16 - cell.bits))
    ]
    return max(matching, key=lambda cell: (bool(cell.protocol), cell.bits))


def worlds(first: int, count: int) -> Iterator[World]:
    return (World.of(seed) for seed in range(first, first + count))
