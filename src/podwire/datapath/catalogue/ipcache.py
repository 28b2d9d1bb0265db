"""bpf/lib/ipcache.h: who is behind an address."""

from __future__ import annotations

from podwire.abi import structs
from podwire.bpf.map import ADDRESS
from podwire.datapath import rows
from podwire.datapath.epochs import POLICY, of_address
from podwire.datapath.spec import EVERYWHERE, Lack, MapSpec, Step, Written, each

EXACT = MapSpec(
    "podwire_ipcache",
    ADDRESS,
    structs.IpcacheEntry,
    "address → who is behind it",
    EVERYWHERE,
    size="ipcache_max",
    title="IP cache",
    written=Written(
        step=Step.ADDRESSES,
        rows=(each("ipcache", rows.ipcache_exact),),
        lack=Lack.JUDGED,
        asks=of_address,
    ),
)
PREFIXES = MapSpec(
    "podwire_ipcache_prefixes",
    structs.PrefixKey,
    structs.IpcacheEntry,
    "prefix → who is behind it",
    EVERYWHERE,
    size="ipcache_max",
    title="IP cache prefixes",
    written=Written(
        step=Step.ADDRESSES,
        rows=(each("ipcache", rows.ipcache_prefix),),
        lack=Lack.JUDGED,
        asks=POLICY,  # any address may be below one
    ),
)
MAPS = (EXACT, PREFIXES)
