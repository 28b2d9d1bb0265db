"""bpf/lib/service.h: where a Service's address leads to, and what its replies show.

In all of them a number is another's after a while: no entry is better than a wrong one, and one that is
not there sends nowhere. What a flow was translated by is asked about again when it changed.
"""

from __future__ import annotations

from podwire.abi import structs
from podwire.bpf.map import U32
from podwire.datapath import rows
from podwire.datapath.epochs import SERVICE
from podwire.datapath.spec import EVERYWHERE, Lack, MapSpec, Rows, Step, Written, each

BACKENDS = MapSpec(
    "podwire_backends",
    U32,
    structs.Backend,
    "id → address of a backend",
    EVERYWHERE,
    size="lb_map_max",
    times=4,
    title="Service backends",
    written=Written(
        step=Step.BACKENDS,
        rows=(Rows("backends", lambda row, setting: rows.backend(row, setting.node)),),
        lack=Lack.NOTHING,
        asks=SERVICE,
    ),
)
SLOTS = MapSpec(
    "podwire_slots",
    structs.SlotKey,
    structs.Slot,
    "set of many backends, place → backend",
    EVERYWHERE,
    size="lb_map_max",
    times=4,
    written=Written(
        step=Step.SETS,
        rows=(each("frontends", rows.slots),),
        lack=Lack.NOTHING,
        asks=SERVICE,
    ),
)
REV_NAT = MapSpec(
    "podwire_rev_nat",
    U32,
    structs.RevNat,
    "service → the address its replies show",
    EVERYWHERE,
    size="lb_map_max",
    written=Written(
        step=Step.SETS,
        rows=(each("frontends", rows.rev_nat),),
        lack=Lack.NOTHING,
        asks=None,
    ),
)
FRONTENDS = MapSpec(
    "podwire_frontends",
    structs.FrontendKey,
    structs.Frontend,
    "service address → its backends",
    EVERYWHERE,
    size="lb_map_max",
    title="Service frontends",
    written=Written(
        step=Step.FRONTENDS,
        rows=(each("frontends", rows.frontend),),
        lack=Lack.NOTHING,
        asks=SERVICE,
    ),
)
MAPS = (BACKENDS, SLOTS, REV_NAT, FRONTENDS)
