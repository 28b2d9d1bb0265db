"""bpf/lib/event.h: what is worth telling, and how much of it each endpoint told."""

from __future__ import annotations

from podwire.abi import structs
from podwire.bpf.map import U32, raw
from podwire.datapath.spec import EVERYWHERE, MapSpec

RING = MapSpec("podwire_events", raw(0), raw(0), "ring of events", EVERYWHERE)
STATISTICS = MapSpec("podwire_event_stats", U32, structs.EventStats, "events emitted and lost", EVERYWHERE)
SHARES = MapSpec(
    "podwire_event_shares", U32, structs.EventShare, "records of one endpoint or cgroup", EVERYWHERE
)
MAPS = (RING, STATISTICS, SHARES)
