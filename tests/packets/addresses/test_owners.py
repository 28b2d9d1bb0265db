"""Policy's answer is who really is there: for every address that a node has, and for those around it.

A node with random devices and addresses; random policies; TCP, UDP and ICMP from a pod to each address, and
from each address to the pod, through the shipped programs with the rows that the stages make of it. The
seed is printed; PODWIRE_SEED chooses one.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.packets.addresses.owners import MANIFESTS, SERVICE_CIDRS, SPECIAL, Host, Owner

from podwire.abi.enums import DropReason, EventKind
from podwire.net import namespaces
from podwire.state.tables import EndpointRow
from podwire.testing import engines, world
from podwire.testing.node import ScenarioNode
from podwire.testing.world import DROPPED, PASS, REDIRECTED, Outcome

pytestmark = pytest.mark.kernel

OBJECTS = Path(__file__).parents[3] / "build" / "bpf"
PROTOCOLS = (6, 17, 1)
NOBODY = ("nobody-here", "nobody-served")
ENTITIES = ("world", "host", "remote-node", "kube-apiserver", "cluster", "all")
PREFIXES = (
    "0.0.0.0/0",
    "::/0",
    "192.168.0.0/16",
    "2001:db8::/32",
    "198.18.7.0/24",
    "172.18.0.0/16",
    "10.0.0.0/8",
)
# What policy knows each by. World is also what is beside somebody; nobody of the Services' prefix too.
MEMBERS = {
    "world": {"world", "kube-apiserver", "nobody-served"},
    "host": {"host", "prefix"},
    "remote-node": {"remote-node"},
    "kube-apiserver": {"kube-apiserver"},
    "cluster": {
        "host",
        "prefix",
        "remote-node",
        "kube-apiserver",
        "neighbour",
        "there",
        "service",
        "nobody-here",
        "nobody-there",
    },
}


@dataclass(frozen=True)
class Policy:
    """What the pod `here` may talk with: entities and prefixes, in both directions."""

    entities: tuple[str, ...]
    prefixes: tuple[str, ...]

    def manifest(self) -> str:
        def peers(word: str) -> str:
            clauses = [f"{{{word}Entities: [{', '.join(self.entities)}]}}"] if self.entities else []
            cidrs = ", ".join(f'"{one}"' for one in self.prefixes)
            clauses += [f"{{{word}CIDR: [{cidrs}]}}"] if self.prefixes else []
            return f"[{', '.join(clauses)}]"

        return (
            "kind: CiliumNetworkPolicy\nmetadata: {name: chosen}\nspec:\n"
            "  endpointSelector: {matchLabels: {app: here}}\n"
            f"  egress: {peers('to')}\n  ingress: {peers('from')}\n"
        )

    def allows(self, owner: Owner) -> bool:
        """A prefix means who is outside of the cluster; of the Services' prefix nobody is, but for all of it
        being the world."""
        if "all" in self.entities or any(owner.who in MEMBERS[one] for one in self.entities if one != "all"):
            return True
        if owner.who == "nobody-served":
            return any(_within(owner.address, one) for one in self.prefixes if one.endswith("/0"))
        return owner.who in MEMBERS["world"] and any(_within(owner.address, one) for one in self.prefixes)


def _within(address: str, prefix: str) -> bool:
    network = ip_network(prefix)
    return network.version == ip_address(address).version and ip_address(address) in network


class Case:
    """One node in the kernel's maps, under one policy after the other."""

    def __init__(self, loaded: world.World, host: Host, *, tunnel: bool) -> None:
        self.world, self.tunnel = loaded, tunnel
        self.node = ScenarioNode(
            dual=True, tunnel=tunnel, service_cidrs=SERVICE_CIDRS, device=lambda number: self._device(number)
        )
        host.tell(self.node.tables)
        self.node.apply(MANIFESTS)
        self.node.settle()
        self.kernel = engines.Kernel(self.node, loaded)
        (self.here,) = self.node.tables.endpoints.by("pod", ("default", "here"))

    def _device(self, number: int) -> tuple[int, str, str]:
        return (
            self.world.device(f"pw{number}"),
            f"02:0a:00:00:00:{number:02x}",
            f"02:ee:00:00:00:{number:02x}",
        )

    def obey(self, policy: Policy) -> None:
        self.node.apply(policy.manifest())
        self.node.settle()
        self.kernel.write()

    def own(self, owner: Owner) -> str:
        return self.here.ipv6 if owner.ipv6 else self.here.ipv4

    def send(self, owner: Owner, protocol: int) -> Outcome:
        self.world.maps["podwire_conntrack"].clear()
        packet = self.node.packet(self.own(owner), owner.address, protocol, 40000, 80)
        frame = engines.frame(packet, _macs(self.here))
        return self.world.run("from_pod", frame, self.here.ifindex)

    def receive(self, owner: Owner, protocol: int, *, way: str) -> Outcome:
        """From the network, or by the stack: of the node itself, or received on another device."""
        self.world.maps["podwire_conntrack"].clear()
        packet = self.node.packet(owner.address, self.own(owner), protocol, 40000, 80)
        frame = engines.frame(packet, engines.UNDERLAY_MACS)
        if way == "network":
            return self.world.from_network(frame)
        received_on = self.world.device("pw4") if way == "forwarded" else 0
        return self.world.run("to_pod", frame, self.here.ifindex, received_on=received_on)


def _macs(row: EndpointRow) -> bytes:
    return bytes.fromhex((row.host_mac + row.mac).replace(":", ""))


def reasons(outcome: Outcome) -> list[int]:
    return [int(event["reason"]) for event in outcome.events if event["kind"] == EventKind.DROP]


@pytest.fixture(params=["native", "tunnel"])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Case, Host, random.Random]]:
    seed = int(os.environ.get("PODWIRE_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}")
    dice = random.Random(seed)
    tunnel = request.param == "tunnel"
    netns = f"podwire-owners-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    namespaces.create(netns)
    try:
        host = Host(netns, dice)
        constants: dict[str, int | bytes] = (
            {"config_tunnel_device": 1, "config_tunnel_mtu": 1400} if tunnel else {}
        )
        with world.World(OBJECTS, constants) as loaded:
            yield Case(loaded, host, tunnel=tunnel), host, dice
    finally:
        namespaces.delete(netns)


def policies(dice: random.Random) -> list[Policy]:
    """The dangerous ones, and some at random."""
    found = [
        Policy(("world",), ()),
        Policy((), ("0.0.0.0/0", "::/0")),
        Policy(("host",), ()),
        Policy(("cluster",), ()),
    ]
    for _ in range(4):
        entities = dice.sample(ENTITIES, dice.randint(0, 2))
        prefixes = dice.sample(PREFIXES, dice.randint(0 if entities else 1, 3))
        found.append(Policy(tuple(entities), tuple(prefixes)))
    return found


def sent_away(case: Case, owner: Owner) -> int:
    """What a program says of a packet that goes on."""
    if owner.who in ("neighbour", "service"):
        return REDIRECTED
    behind = owner.who in ("there", "nobody-there") or owner.address == "10.0.2.254"
    return REDIRECTED if case.tunnel and behind else PASS


def test_who_a_pod_reaches_is_who_policy_lets_it(case: tuple[Case, Host, random.Random]) -> None:
    kernel, host, dice = case
    for policy in policies(dice):
        kernel.obey(policy)
        for owner in host.all():
            for protocol in PROTOCOLS:
                if owner.who == "service" and protocol == 1:
                    owner_asked = Owner(owner.address, "nobody-served")  # a Service answers on its ports only
                else:
                    owner_asked = owner
                outcome = kernel.send(owner, protocol)
                told = f"{policy} {owner_asked} protocol {protocol}: {outcome.verdict} {reasons(outcome)}"
                if not policy.allows(owner_asked):
                    assert (outcome.verdict, reasons(outcome)) == (DROPPED, [DropReason.POLICY_DENIED]), told
                elif owner_asked.who in NOBODY:
                    assert (outcome.verdict, reasons(outcome)) == (DROPPED, [DropReason.UNKNOWN_L3_TARGET]), (
                        told
                    )
                else:
                    assert outcome.verdict == sent_away(kernel, owner), told


def test_who_reaches_a_pod_is_who_policy_lets(case: tuple[Case, Host, random.Random]) -> None:
    """From the network nobody is the node or one of its pods, nor with a tunnel a pod of another node."""
    kernel, host, dice = case
    for policy in policies(dice):
        kernel.obey(policy)
        for owner in host.all():
            if owner.who in ("service", "nobody-served"):
                continue  # an address that sends nothing
            protocol = dice.choice(PROTOCOLS)
            outcome = kernel.receive(owner, protocol, way="network")
            told = f"{policy} {owner} protocol {protocol}: {outcome.verdict} {reasons(outcome)}"
            behind = owner.who in ("there", "nobody-there") or owner.address == "10.0.2.254"
            if owner.who in ("host", "neighbour") or (kernel.tunnel and (behind or owner.who == "prefix")):
                assert (outcome.verdict, reasons(outcome)) == (DROPPED, [DropReason.INVALID_SOURCE_IP]), told
                continue
            # Nobody sends by these: the world, for want of anybody, but no part of it that a rule names.
            seen = Owner(
                owner.address,
                {"prefix": "nobody-served", "nobody-here": "nobody-there"}.get(owner.who, owner.who),
            )
            if policy.allows(seen):
                assert outcome.verdict == REDIRECTED, told
            else:
                assert (outcome.verdict, reasons(outcome)) == (DROPPED, [DropReason.POLICY_DENIED]), told


def test_the_node_reaches_its_pods_by_every_address_and_nobody_else_has_one(
    case: tuple[Case, Host, random.Random],
) -> None:
    kernel, host, dice = case
    kernel.obey(Policy(("remote-node",), ()))
    for owner in host.all():
        if owner.who not in ("host", "prefix"):
            continue
        protocol = dice.choice(PROTOCOLS)
        assert kernel.receive(owner, protocol, way="node").verdict == PASS, owner
        forged = kernel.receive(owner, protocol, way="forwarded")
        assert (forged.verdict, reasons(forged)) == (DROPPED, [DropReason.INVALID_SOURCE_IP]), owner


@pytest.mark.parametrize("address", SPECIAL)
def test_an_address_of_nobody_in_particular_is_no_way_to_the_node(
    case: tuple[Case, Host, random.Random], address: str
) -> None:
    kernel, _, _ = case
    for policy in (Policy(("world",), ()), Policy((), ("0.0.0.0/0", "::/0")), Policy(("all",), ())):
        kernel.obey(policy)
        for protocol in PROTOCOLS:
            outcome = kernel.send(Owner(address, "special"), protocol)
            assert outcome.verdict == DROPPED and len(reasons(outcome)) == 1, (
                policy,
                protocol,
                reasons(outcome),
            )
