"""Policy rules, parsed and validated: what CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and
NetworkPolicy have in common.

A policy object gives one or more rules (spec, specs); a rule selects its subjects and has clauses;
a clause is one allowance or denial in one direction: peers × ports. Peers are label selectors only:
CIDRs and entities become selectors of ``cidr:`` and ``reserved:`` labels, so that resolving needs to
know identities and nothing else.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from podwire.model.labels import Labels
from podwire.model.selector import Selector


class Direction(IntEnum):
    """Numbers of bpf/abi/event.h."""

    INGRESS = 1
    EGRESS = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Effect(IntEnum):
    """Numbers of bpf/abi/policy.h."""

    ALLOW = 1
    DENY = 2


class Ports(msgspec.Struct, frozen=True, order=True):
    """A range of destination ports of one protocol.

    `protocol` is an IPPROTO number, 0 = TCP, UDP and SCTP alike (ANY). `first`..`last` inclusive,
    0..65535 = all; `name` is a named port: of the endpoint itself on ingress, of the peer on egress.
    ICMP has its type in the high byte and its code in the low one, as the kernel's key does: type 8
    is 0x0800..0x08ff.
    """

    protocol: int = 0
    first: int = 0
    last: int = 65535
    name: str = ""


class Prefix(msgspec.Struct, frozen=True, order=True):
    """A CIDR and what is excepted from it, all canonical."""

    cidr: str
    excepted: tuple[str, ...] = ()


class Clause(msgspec.Struct, frozen=True):
    """`effect` for packets of `direction` between the subject and any of `peers`, on any of `ports`.

    peers None: whoever (also addresses no identity is known of); peers (): nobody.
    ports None: any protocol and port. `redirect`, of one that allows, is the number (1 to 65535) of the
    proxy's listener that the packets are to pass; 0 = none.
    """

    direction: Direction
    effect: Effect
    index: int  # of the entry in spec.ingress / ingressDeny / egress / egressDeny
    peers: tuple[Selector, ...] | None
    ports: tuple[Ports, ...] | None
    path: str  # spec.ingress[0]
    redirect: int = 0


class Origin(msgspec.Struct, frozen=True, order=True):
    """The object a rule is from."""

    kind: str  # CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy | NetworkPolicy
    namespace: str  # empty for cluster scoped
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Rule(msgspec.Struct, frozen=True):
    """One spec. `prefixes` are the CIDRs its clauses name: each needs an identity of its own."""

    origin: Origin
    index: int  # which of specs; 0 for spec
    subject: Selector
    clauses: tuple[Clause, ...]
    default_deny_ingress: bool
    default_deny_egress: bool
    labels: Labels = ()
    description: str = ""
    log: str = ""
    prefixes: tuple[Prefix, ...] = ()
