"""bpf/lib/metrics.h: packets and bytes by outcome."""

from __future__ import annotations

from podwire.abi import structs
from podwire.datapath.spec import EVERYWHERE, MapSpec

MAPS = (
    MapSpec(
        "podwire_metrics", structs.MetricKey, structs.MetricValue, "packets and bytes by outcome", EVERYWHERE
    ),
)
