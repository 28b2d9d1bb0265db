"""Flows: the words that a stored flow refers to.

A flow itself is a row of columns (`hubble.store`); what has a name is one of these values, shared by
all flows that mean the same. They say what was so when the flow was stored, whatever came after.
Numbers are those of Hubble's enumerations.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from podwire.model.labels import Labels
from podwire.model.rule import Origin

# What the compact, dict and table forms need of a flow; the same as `hubble` asks for.
PRINTED_FIELDS = (
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
)

# `number` of a request for all flows, and how many are asked for where nothing is said.
ALL = (1 << 64) - 1
DEFAULT_LAST = 20
# Labels of a flow's policies: the clause that decided, or that none did.
CLAUSE_LABEL = "podwire:clause="
DEFAULT_DENY_LABEL = "podwire:default-deny"


class Verdict(IntEnum):
    UNKNOWN = 0
    FORWARDED = 1
    DROPPED = 2
    ERROR = 3
    AUDIT = 4
    REDIRECTED = 5
    TRACED = 6
    TRANSLATED = 7


class Reply(IntEnum):
    """Whether a packet answers another: `is_reply`, which may be unknown."""

    UNKNOWN = 0
    NO = 1
    YES = 2


class Party(msgspec.Struct, frozen=True):
    """Who is at one end. Addresses and numbers are columns; a party is only what they stand for."""

    labels: Labels = ()
    namespace: str = ""
    pod: str = ""
    workload_kind: str = ""
    workload_name: str = ""
    cluster: str = ""


class ServiceName(msgspec.Struct, frozen=True):
    """The service whose frontend or backend an address and port are."""

    namespace: str
    name: str


class Decision(msgspec.Struct, frozen=True):
    """What decided a verdict: `clause` of `origins[0]`, or, when nothing allowed it, the policies
    that select the endpoint in that direction and so made default deny."""

    origins: tuple[Origin, ...]
    clause: str
    default_deny: bool
    direction: int
    log: str = ""


class Interface(msgspec.Struct, frozen=True):
    """The device an event was seen on."""

    name: str


NO_PARTY = Party()
