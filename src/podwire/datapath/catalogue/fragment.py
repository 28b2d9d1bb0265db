"""bpf/lib/fragment.h: what only the first fragment of a packet says."""

from __future__ import annotations

from podwire.abi import structs
from podwire.datapath.spec import ON_DEVICES, MapSpec

MAPS = (
    MapSpec(
        "podwire_fragments", structs.FragmentKey, structs.Fragment, "ports of fragmented packets", ON_DEVICES
    ),
)
