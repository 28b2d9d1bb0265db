"""bpf/lib/conntrack.h: the connections of endpoints, and what has them asked about anew."""

from __future__ import annotations

from podwire.abi import structs
from podwire.bpf.map import U32
from podwire.datapath.spec import ON_DEVICES, MapSpec

STATE = MapSpec("podwire_state", U32, structs.NodeState, "what is one per node", ON_DEVICES)
CONNECTIONS = MapSpec(
    "podwire_conntrack",
    structs.CtKey,
    structs.CtEntry,
    "connections",
    ON_DEVICES,
    size="ct_max",
    title="Connections",
)
OVERFLOW = MapSpec(
    "podwire_ct_overflow",
    structs.CtKey,
    structs.CtEntry,
    "connections beyond an endpoint's share, or beyond the table",
    ON_DEVICES,
    size="ct_overflow_max",
)
MADE = MapSpec("podwire_ct_made", U32, U32, "connections ever made, by share", ON_DEVICES)
GONE = MapSpec("podwire_ct_gone", U32, U32, "of those, gone again", ON_DEVICES)
MAPS = (STATE, CONNECTIONS, OVERFLOW, MADE, GONE)
