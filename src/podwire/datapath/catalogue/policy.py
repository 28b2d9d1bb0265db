"""bpf/lib/policy.h: which class of peers an identity is of, and what the policy says to that class."""

from __future__ import annotations

from podwire.abi import structs
from podwire.datapath import rows
from podwire.datapath.epochs import of_block, of_policy
from podwire.datapath.mirror import Target
from podwire.datapath.peers import PeersMirror
from podwire.datapath.spec import ON_DEVICES, Lack, MapSpec, Rows, Step, Told, Written
from podwire.state.views import ReadTables


def _peers_mirror(name: str, target: Target, tables: ReadTables) -> PeersMirror:
    return PeersMirror(name, target, tables.policy_peers)


ENTRIES = MapSpec(
    "podwire_policy",
    structs.PolicyKey,
    structs.PolicyEntry,
    "class and port → verdict",
    ON_DEVICES,
    size="policy_map_max",
    title="Policy entries",
    written=Written(
        step=Step.POLICIES,
        rows=(Rows("policy_entries", lambda row, setting: rows.policy_entry(row), told=Told.LEAVING),),
        lack=Lack.JUDGED,
        truthful=False,  # a policy's number is of its content: none of its entries is ever another
        asks=lambda key: of_policy(structs.PolicyKey.unpack(key).policy),
    ),
)
PEERS = MapSpec(
    "podwire_policy_peers",
    structs.PolicyPeersKey,
    structs.PolicyPeers,
    "16 identities → their classes of peers",
    ON_DEVICES,
    size="policy_peers_max",
    title="Policy peers",
    written=Written(
        step=Step.PEERS,
        rows=(
            Rows(
                "policy_peers",
                lambda row, setting: rows.policy_peers((row,)),
                told=Told.LEAVING,
                together=rows.policy_peers,
            ),
        ),
        lack=Lack.JUDGED,
        asks=lambda key: of_block(structs.PolicyPeersKey.unpack(key).block),
        mirror=_peers_mirror,
    ),
)
MAPS = (ENTRIES, PEERS)
