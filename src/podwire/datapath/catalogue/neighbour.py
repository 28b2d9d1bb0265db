"""bpf/lib/neighbour.h: how many neighbours each endpoint made the node ask for."""

from __future__ import annotations

from podwire.bpf.map import U32, raw
from podwire.datapath.spec import MapSpec

MAPS = (
    MapSpec(
        "podwire_neighbour_shares", U32, raw(8), "neighbours that endpoints make the node ask for", ("lxc",)
    ),
)
