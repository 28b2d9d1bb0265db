"""Stories of a node whose maps are too small: pods, prefixes and policies come and go at random.

What the language means is said here anew, from the clauses; the rows are written as policy.compute writes
them: a policy's rows come with its number and go with it, a class has all its entries, an address is
there when policies know its identity.
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass, field

from podwire.model.rule import Direction
from podwire.state.tables import (
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    IdentityRow,
    IpcacheRow,
    PeerRow,
    ProgressRow,
    Tables,
)

WORLD = 2
ALLOW, DENY, DEFAULT = 1, 2, 0
PORTS = (80, 81, 82)
PREFIXES = [
    "10.1.0.0/16", "10.1.1.0/24", "10.1.1.128/25", "10.2.0.0/16", "10.2.7.0/24", "198.51.100.0/24",
    "0.0.0.0/1", "198.51.100.64/26",
]  # fmt: skip
ADDRESSES = [
    "10.1.1.1", "10.1.1.200", "10.1.9.9", "10.2.7.7", "10.2.8.8", "198.51.100.1", "198.51.100.70",
    "203.0.113.5", "10.9.9.1", "10.9.9.2", "10.9.9.3", "10.9.9.4",
]  # fmt: skip


def in_family(place: str, ipv6: bool) -> str:
    """An IPv4 address or prefix, or the IPv6 one that ends in it."""
    if not ipv6:
        return place
    address, slash, bits = place.partition("/")
    return f"fd64::{address}" + (f"/{96 + int(bits)}" if slash else "")


@dataclass(frozen=True)
class Clause:
    """Peers whose identity has one of `bits` (0 = all peers), on one port (0 = all)."""

    direction: Direction
    bits: int
    port: int
    verdict: int


@dataclass(frozen=True)
class Policy:
    number: int
    clauses: tuple[Clause, ...]
    enforced: tuple[bool, bool]  # ingress, egress

    def naming(self, direction: Direction, identity: int) -> tuple[int, ...]:
        """The clauses that name this identity."""
        return tuple(
            place
            for place, clause in enumerate(self.clauses)
            if clause.direction == direction and clause.bits & label(identity)
        )

    def says(self, direction: Direction, named: tuple[int, ...], port: int) -> int:
        verdicts = {
            clause.verdict
            for place, clause in enumerate(self.clauses)
            if clause.direction == direction
            and clause.port in (0, port)
            and (not clause.bits or place in named)
        }
        return DENY if DENY in verdicts else ALLOW if ALLOW in verdicts else DEFAULT

    def verdict(self, direction: Direction, identity: int, port: int) -> int:
        if not self.enforced[direction is Direction.EGRESS]:
            return ALLOW
        return self.says(direction, self.naming(direction, identity), port)

    def peer_class(self, direction: Direction, identity: int) -> int:
        """0 = nothing names it; else a number that says what does."""
        return sum(1 << place for place in self.naming(direction, identity)) << 8

    def peers(self, identities: list[int]) -> list[PeerRow]:
        return [
            PeerRow(self.number, direction, one, number)
            for direction in (Direction.INGRESS, Direction.EGRESS)
            for one in identities
            if (number := self.peer_class(direction, one))
        ]

    def entries(self, identities: list[int]) -> list[EntryRow]:
        made = []
        for direction in (Direction.INGRESS, Direction.EGRESS):
            classes = {0: ()} | {
                self.peer_class(direction, one): self.naming(direction, one) for one in identities
            }
            for number, named in classes.items():
                for port in (0, *PORTS):
                    verdict = self.says(direction, named, port)
                    protocol, bits = (6, 16) if port else (0, 0)
                    made.append(
                        EntryRow(self.number, number, direction, protocol, port, bits, verdict, 2, 0, 1)
                    )
        return made


def label(identity: int) -> int:
    """What clauses select by."""
    return 1 << identity % 5


@dataclass
class Story:
    """`pods`: endpoints of this node, by number; each obeys one of the policies. All is of one family."""

    dice: random.Random
    pods: list[EndpointRow]
    ipv6: bool = False
    tables: Tables = field(default_factory=Tables)
    policies: dict[int, Policy] = field(default_factory=dict)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.identities = [WORLD, *(pod.identity for pod in self.pods)]
        self.behind: dict[str, int] = {}  # prefix → identity
        self.obeyed = {pod.id: self.policy() for pod in self.pods}
        self.write()

    def policy(self) -> Policy:
        dice = self.dice
        clauses = tuple(
            Clause(
                dice.choice((Direction.INGRESS, Direction.EGRESS)),
                dice.choice((0, 1, 2, 4, 8, 16, 3, 12)),
                dice.choice((0, *PORTS)),
                dice.choice((ALLOW, ALLOW, DENY)),
            )
            for _ in range(dice.randint(1, 5))
        )
        number = 1000 + len(self.policies)
        made = Policy(number, clauses, (dice.random() < 0.8, dice.random() < 0.8))
        self.policies[number] = made
        return made

    def step(self) -> None:
        """One change of the world."""
        dice = self.dice
        match dice.randrange(17) // 2:
            case 0 | 1:
                pod = dice.choice(self.pods)
                self.obeyed[pod.id] = self.policy()
            case 2:
                # Some share a block of the map of peers, and a number is another's after it was one's.
                self.identities.append(next(one for one in range(256, 1000, 7) if one not in self.identities))
            case 3 | 4:
                self.behind[in_family(dice.choice(PREFIXES), self.ipv6)] = self.other()
            case 5 | 6:
                self.behind[in_family(dice.choice(ADDRESSES) + "/32", self.ipv6)] = self.other()
            case 7 if self.behind:
                del self.behind[dice.choice(list(self.behind))]
            case 8 if len(self.identities) > len(self.pods) + 4:  # some are left, or no map is ever full
                gone = self.other()
                self.identities.remove(gone)
                self.behind = {prefix: one for prefix, one in self.behind.items() if one != gone}
        self.write()

    def other(self) -> int:
        return self.dice.choice(self.identities[1 + len(self.pods) :] or [WORLD])

    def empty(self) -> None:
        """Next to nothing is left: it fits."""
        self.behind.clear()
        for number in self.obeyed:
            self.obeyed[number] = Policy(999, (Clause(Direction.INGRESS, 0, 80, ALLOW),), (True, False))
        self.policies[999] = self.obeyed[self.pods[0].id]
        self.write()

    def write(self) -> None:
        """The tables, all of them in one moment."""
        tables = self.tables
        tables.identities.replace(IdentityRow(one, (f"k8s:n={one}",), "cluster") for one in self.identities)
        obeyed = set(self.obeyed.values())
        tables.policy_entries.replace(row for one in obeyed for row in one.entries(self.identities))
        tables.policy_peers.replace(row for one in obeyed for row in one.peers(self.identities))
        self.rounds += 1
        tables.progress.put(ProgressRow("policy.compute", tables.identities.revision, self.rounds))
        local = {
            f"{address}/{128 if self.ipv6 else 32}": pod.identity
            for pod in self.pods
            for address in pod.addresses
        }
        tables.ipcache.replace(
            IpcacheRow(prefix, number, "k8s") for prefix, number in (self.behind | local).items()
        )
        tables.endpoints.replace(self.pods)
        tables.endpoint_policies.replace(
            EndpointPolicyRow(number, one.number, *one.enforced, self.rounds)
            for number, one in self.obeyed.items()
        )

    def ready(self) -> None:
        for table in self.tables:
            table.mark_all_ready()

    def identity_at(self, address: str) -> int:
        """Who really is there."""
        for pod in self.pods:
            if address in pod.addresses:
                return pod.identity
        parsed = ipaddress.ip_address(address)
        found = [
            (network.prefixlen, number)
            for prefix, number in self.behind.items()
            if parsed in (network := ipaddress.ip_network(prefix))
        ]
        return max(found, default=(0, WORLD))[1]

    def places(self) -> list[str]:
        others = [in_family(address, self.ipv6) for address in ADDRESSES]
        return [*others, *(pod.addresses[0] for pod in self.pods)]
