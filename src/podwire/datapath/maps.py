"""The catalogue of maps: one line each, and where they are pinned.

In the walk: the tables are above, the programs in bpf/ below; a map's name, key and value are
declared there (bpf/lib, bpf/abi) and repeated here only as types. Maps live below
``<bpf_dir>/maps-<generation>``: a map whose layout changed, or that must grow, starts a new
generation, into which the others are carried over (see `programs`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from podwire.abi import structs
from podwire.base import addresses
from podwire.base.config import AgentConfig
from podwire.base.errors import KernelError, NotFound
from podwire.bpf.map import ADDRESS, U32, U64, Codec, Map, raw
from podwire.model import identity


class MapSpec(msgspec.Struct, frozen=True):
    """One map. `size` names the option of AgentConfig that sizes it and how often, "" = fixed in bpf/lib."""

    name: str
    key: Codec[Any] | type[Any]
    value: Codec[Any] | type[Any]
    help: str
    table: str  # what writes it: a table of state.tables, or the programs themselves
    size: str = ""
    times: int = 1

    @property
    def layout(self) -> int:
        """A number of what its bytes mean: the kernel only knows how many they are."""
        told = [
            str(kind.size) if isinstance(kind, Codec) else f"{kind.NAME} {kind.LAYOUT.format} {kind.OFFSETS}"
            for kind in (self.key, self.value)
        ]
        return zlib.crc32(" → ".join(told).encode())


_SPECS = (
    MapSpec(
        "podwire_policy",
        structs.PolicyKey,
        structs.PolicyEntry,
        "class and port → verdict",
        "policy_entries",
        "policy_map_max",
    ),
    MapSpec(
        "podwire_policy_peers",
        structs.PolicyPeersKey,
        structs.PolicyPeers,
        "16 identities → their classes of peers",
        "policy_peers",
        "policy_peers_max",
    ),
    MapSpec(
        "podwire_ipcache",
        ADDRESS,
        structs.IpcacheEntry,
        "address → who is behind it",
        "ipcache",
        "ipcache_max",
    ),
    MapSpec(
        "podwire_ipcache_prefixes",
        structs.PrefixKey,
        structs.IpcacheEntry,
        "prefix → who is behind it",
        "ipcache",
        "ipcache_max",
    ),
    MapSpec(
        "podwire_backends", U32, structs.Backend, "id → address of a backend", "backends", "lb_map_max", 4
    ),
    MapSpec(
        "podwire_slots",
        structs.SlotKey,
        structs.Slot,
        "set of many backends, place → backend",
        "frontends",
        "lb_map_max",
        4,
    ),
    MapSpec(
        "podwire_rev_nat",
        U32,
        structs.RevNat,
        "service → the address its replies show",
        "frontends",
        "lb_map_max",
    ),
    MapSpec(
        "podwire_frontends",
        structs.FrontendKey,
        structs.Frontend,
        "service address → its backends",
        "frontends",
        "lb_map_max",
    ),
    MapSpec(
        "podwire_endpoints", ADDRESS, structs.Endpoint, "address → pod of this node, or the node", "endpoints"
    ),
    MapSpec("podwire_devices", U32, structs.Endpoint, "device → pod of this node", "endpoints"),
    MapSpec("podwire_state", U32, structs.NodeState, "what is one per node", "policy_entries"),
    MapSpec("podwire_conntrack", structs.CtKey, structs.CtEntry, "connections", "programs", "ct_max"),
    MapSpec(
        "podwire_ct_overflow",
        structs.CtKey,
        structs.CtEntry,
        "connections beyond an endpoint's share, or beyond the table",
        "programs",
        "ct_overflow_max",
    ),
    MapSpec("podwire_ct_made", U32, U32, "connections ever made, by share", "programs"),
    MapSpec("podwire_ct_gone", U32, U32, "of those, gone again", "programs"),
    MapSpec(
        "podwire_fragments",
        structs.FragmentKey,
        structs.Fragment,
        "ports of fragmented packets",
        "programs",
    ),
    MapSpec("podwire_sockets", U64, raw(40), "connected socket → what Service it asked", "programs"),
    MapSpec(
        "podwire_socket_services", raw(4), raw(168), "with each socket: what Services it asked", "programs"
    ),
    MapSpec(
        "podwire_metrics", structs.MetricKey, structs.MetricValue, "packets and bytes by outcome", "programs"
    ),
    MapSpec("podwire_events", raw(0), raw(0), "ring of events", "programs"),
    MapSpec("podwire_event_stats", U32, structs.EventStats, "events emitted and lost", "programs"),
    MapSpec(
        "podwire_neighbour_shares", U32, raw(8), "neighbours that endpoints make the node ask for", "programs"
    ),
    MapSpec("podwire_event_shares", U32, structs.EventShare, "records of one endpoint or cgroup", "programs"),
)

CATALOGUE: dict[str, MapSpec] = {spec.name: spec for spec in _SPECS}


def sizes(config: AgentConfig) -> dict[str, int]:
    """Map name → entries, for those the configuration sizes."""
    return {spec.name: getattr(config, spec.size) * spec.times for spec in _SPECS if spec.size}


class Maps:
    """The maps of one directory of pins, opened when first asked for.

    ``maps["podwire_conntrack"]`` is typed as the catalogue says; NotFound if it is not pinned (no
    object that was loaded has it).
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._open: dict[str, Map[Any, Any]] = {}

    def __getitem__(self, name: str) -> Map[Any, Any]:
        opened, directory = self._open, self.directory  # a thread that makes maps bigger may `move` us
        if name not in opened:
            spec = CATALOGUE[name]
            try:
                found = Map.open(os.path.join(directory, name), spec.key, spec.value)
            except KernelError as error:
                raise NotFound(
                    f"map {name} is not in {directory}", hint="is the agent of this node running?"
                ) from error
            found.name = name  # the kernel keeps 15 characters of it
            opened[name] = found
        return opened[name]

    def target(self, name: str) -> Map[bytes, bytes]:
        """The same with keys and values as bytes, on a descriptor of its own: for who writes it."""
        return self[name].untyped()

    def __contains__(self, name: str) -> bool:
        return os.path.exists(self.path(name))

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def move(self, directory: str) -> None:
        """From now on those of another directory. Who still uses one of the old ones keeps it."""
        # In this order, and read in the opposite one: no map of the old directory is kept for one of the new.
        self.directory = directory
        self._open = {}

    def close(self) -> None:
        for opened in self._open.values():
            opened.close()
        self._open.clear()


Address = tuple[str, int, int]  # address, port, protocol


def restore_numbers(maps: Maps) -> tuple[Mapping[Address, int], Mapping[Address, int]]:
    """What the load balancer's maps hold: backend → id, frontend → number of its reverse translation.

    Connections of the kernel remember these numbers, so a new agent goes on with them.
    """
    backends = {
        (addresses.unpack(backend.address), backend.port, backend.protocol): number
        for number, backend in maps["podwire_backends"].items()
    }
    services = {
        (addresses.unpack(key.address), key.port, key.protocol): frontend.rev_nat
        for key, frontend in maps["podwire_frontends"].items()
        if key.scope == 0 and frontend.rev_nat
    }
    return backends, services


def restore_prefixes(maps: Maps) -> Mapping[str, int]:
    """Prefix → identity local to this node, as the kernel's ipcache has them."""
    found = {addresses.exact(address): entry.identity for address, entry in maps["podwire_ipcache"].items()}
    found |= {
        addresses.unpack_prefix(key.prefix_length, key.address): entry.identity
        for key, entry in maps["podwire_ipcache_prefixes"].items()
    }
    return {prefix: number for prefix, number in found.items() if identity.is_local(number)}
