"""A datapath without a cluster: the shipped programs, in a namespace of their own, with rows put by hand.

For packet tests, fuzzing and measuring. `World.run` gives a program one packet as if it had come in on a
device, and returns what the program said, the packet as it left it and the events it emitted.
Nothing is attached and nothing is pinned: closing the world removes all of it.
"""

from __future__ import annotations

import os
from array import array
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from podwire.abi.enums import (
    FRONTEND_SLOTS,
    PEER_BLOCK_BITS,
    POLICY_PREFIX_DIRECTION,
    POLICY_PREFIX_PORT,
    POLICY_PREFIX_PROTOCOL,
    EndpointFlags,
    PolicyMatch,
    PolicyVerdict,
    ReservedIdentity,
)
from podwire.abi.structs import (
    Backend,
    CtEntry,
    CtKey,
    Endpoint,
    EventStats,
    Frontend,
    FrontendKey,
    IpcacheEntry,
    MetricKey,
    MetricValue,
    NodeState,
    PolicyEntry,
    PolicyKey,
    PolicyPeers,
    PolicyPeersKey,
    PrefixKey,
    RevNat,
    Slot,
    SlotKey,
)
from podwire.base.addresses import pack, pack_prefix
from podwire.bpf.events import Ring
from podwire.bpf.map import ADDRESS, U32, Map, MapType, raw
from podwire.bpf.object import ObjectSpec, Program, SkbContext, TestRun, load
from podwire.datapath.catalogue import declared_by
from podwire.datapath.hooks import Where
from podwire.datapath.hooks import objects as objects_on
from podwire.net import namespaces
from podwire.net.messages import Veth
from podwire.net.stack import Stack

if TYPE_CHECKING:
    import numpy as np

OBJECTS = objects_on(where for where in Where if where.is_device)
PASS, DROPPED, REDIRECTED = 0, 2, 7
UNDERLAY = "pw-under"
UNDERLAY_MAC = bytes.fromhex("02aa00000001")
_numbers = count(1)
TABLES = (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE)  # that begin empty


def frontend(number: int, slots: list[Slot], *, many: bool = False, flags: int = 0) -> Frontend:
    """A Service's row with its backends in it; `many`: in the set of its number."""
    return Frontend(
        set=number if many else 0,
        count=len(slots),
        rev_nat=number,
        flags=flags,
        slots=b"" if many else b"".join(slot.pack() for slot in slots),
    )


class Pod(msgspec.Struct, frozen=True):
    """A pod of the world: its rows are in the maps, its device is in the namespace."""

    name: str
    id: int
    device: int
    identity: int
    mac: bytes
    host_mac: bytes
    ipv4: str
    ipv6: str
    policy: int = 0
    flags: int = 0

    def address(self, ipv6: bool) -> str:
        return self.ipv6 if ipv6 else self.ipv4


class Outcome(msgspec.Struct, frozen=True):
    """What a program did with a packet. `events` has the fields of `podwire.abi.dtypes.EVENT`."""

    verdict: int
    packet: bytes
    events: Any
    nanoseconds: int
    mark: int = 0  # afterwards


class World:
    """The programs, sharing one set of maps, and a namespace with the devices of up to `pods` pods.

    With `network` the programs know that UNDERLAY is the device towards other nodes.
    """

    def __init__(
        self,
        objects: Path,
        constants: dict[str, int | bytes] | None = None,
        max_entries: dict[str, int] | None = None,
        pods: int = 4,
        *,
        network: bool = False,
    ) -> None:
        from podwire.abi.dtypes import EVENT

        self.namespace = f"pw-world-{os.getpid()}-{next(_numbers)}"
        namespaces.create(self.namespace)
        self._loaded: list[Any] = []
        self._highest = 0  # id of an endpoint
        try:
            self._devices = self._make_devices(pods)
            if network:
                constants = {**(constants or {}), "config_network_device": self._devices[UNDERLAY]}
            self.maps: dict[str, Map[Any, Any]] = {}
            self._load(objects, constants or {}, max_entries or {})
            self.ring = Ring.of(self._untyped["podwire_events"], EVENT)
        except BaseException:
            self.close()
            raise

    def _make_devices(self, pods: int) -> dict[str, int]:
        made = {}
        with Stack(self.namespace) as stack:
            for number in range(1, pods + 1):
                link = stack.ensure_veth(
                    Veth(f"pw{number}", _mac(0xEE, number)), Veth(f"pw{number}p", _mac(0x0A, number))
                )
                made[link.name] = link.ifindex
            under = stack.ensure_veth(Veth(UNDERLAY, UNDERLAY_MAC), Veth(f"{UNDERLAY}p", _mac(0xAA, 2)))
            made[UNDERLAY] = under.ifindex
        return made

    def _load(self, objects: Path, constants: dict[str, int | bytes], sizes: dict[str, int]) -> None:
        self._untyped: dict[str, Map[Any, Any]] = {}
        self.programs: dict[str, Program] = {}
        for name in OBJECTS:
            spec = ObjectSpec(str(objects / f"{name}.bpf.o"), constants, sizes)
            loaded = load(spec, self._untyped)
            self._loaded.append(loaded)
            self.programs |= loaded.programs
            self._untyped |= {key: value for key, value in loaded.maps.items() if key not in self._untyped}
        self._catalogue = declared_by(OBJECTS)
        for name, one in self._catalogue.items():
            if self._untyped[name].type in TABLES:
                key = raw(16) if one.key is ADDRESS else one.key  # a test may ask for what is no address
                self.maps[name] = self._untyped[name].typed(key, one.value)
        self.metrics = self._untyped["podwire_metrics"].typed(MetricKey, MetricValue)
        self.state = self._untyped["podwire_state"].typed(U32, NodeState)
        self.statistics = self._untyped["podwire_event_stats"].typed(U32, EventStats)

    def close(self) -> None:
        for loaded in self._loaded:
            loaded.close()
        for table in self.maps.values() if hasattr(self, "maps") else ():
            table.close()
        for name in ("metrics", "state", "statistics", "ring"):
            if hasattr(self, name):
                getattr(self, name).close()
        namespaces.delete(self.namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """No rows, no connections, no events, epoch 0."""
        for table in self.maps.values():
            table.clear()
        for name in self._catalogue:
            if (table := self._untyped[name]).type == MapType.ARRAY:  # by share, of which each pod has two
                shares = range(min(2 * self._highest + 2, table.capacity))
                with table.untyped() as rows:
                    rows.put_many((U32.pack(share), bytes(rows.value_size)) for share in shares)
        for key in list(self.counted()):
            self.metrics[MetricKey(*key)] = MetricValue(0, 0)
        while len(self.ring.read()):
            pass

    # Rows

    def pod(self, number: int, identity: int, *, policy: int = 0, flags: int = 0) -> Pod:
        """Pod `number`: 10.0.1.<number> and fd00:10:1::<number>."""
        made = self.shape(number, identity, policy=policy, flags=flags)
        self.write(made)
        return made

    def shape(self, number: int, identity: int, *, policy: int = 0, flags: int = 0) -> Pod:
        """The same without rows: somebody else writes them."""
        return Pod(
            name=f"pod{number}",
            id=100 + number,
            device=self._devices[f"pw{number}"],
            identity=identity,
            mac=_mac(0x0A, number),
            host_mac=_mac(0xEE, number),
            ipv4=f"10.0.1.{number}",
            ipv6=f"fd00:10:1::{number:x}",
            policy=policy,
            flags=flags,
        )

    def write(self, pod: Pod) -> None:
        """The pod's rows, new or changed."""
        row = Endpoint(
            pod.device,
            pod.identity,
            pod.policy,
            pod.id,
            pod.flags,
            pod.mac,
            pod.host_mac,
            ipv4=pack(pod.ipv4),
            ipv6=pack(pod.ipv6),
        )
        self._highest = max(self._highest, pod.id)
        self.maps["podwire_devices"][pod.device] = row
        self.maps["podwire_endpoints"][row.ipv4] = row
        self.maps["podwire_endpoints"][row.ipv6] = row

    def node(self, address: str) -> None:
        """An address of the node itself."""
        row = Endpoint(identity=ReservedIdentity.HOST, flags=EndpointFlags.HOST)
        self.maps["podwire_endpoints"][pack(address)] = row

    def known(self, address: str, identity: int, tunnel: str = "", flags: int = 0) -> None:
        """A row of the ipcache: an address, or a prefix if it has a slash."""
        entry = IpcacheEntry(identity, flags, tunnel=pack(tunnel) if tunnel else bytes(16))
        if "/" in address:
            bits, packed = pack_prefix(address)
            self.maps["podwire_ipcache_prefixes"][PrefixKey(bits, packed)] = entry
        else:
            self.maps["podwire_ipcache"][pack(address)] = entry

    def peer(self, policy: int, identity: int, direction: int, peer_class: int) -> None:
        blocks = self.maps["podwire_policy_peers"]
        key = PolicyPeersKey(policy, identity >> PEER_BLOCK_BITS, direction)
        held = blocks.get(key) or PolicyPeers(bytes(PolicyPeers.SIZE))
        classes = array("I", held.classes)
        classes[identity & ((1 << PEER_BLOCK_BITS) - 1)] = peer_class
        blocks[key] = PolicyPeers(classes.tobytes())

    def rule(
        self,
        policy: int,
        direction: int,
        *,
        peer_class: int = 0,
        protocol: int = 0,
        port: int | None = None,
        rule: int = 1,
        verdict: PolicyVerdict = PolicyVerdict.ALLOW,
        match: PolicyMatch = PolicyMatch.L3_L4,
    ) -> None:
        """One entry of a policy; without protocol for all of them, without port for all ports."""
        bits = POLICY_PREFIX_PROTOCOL if protocol else POLICY_PREFIX_DIRECTION
        bits = bits if port is None else POLICY_PREFIX_PORT
        key = PolicyKey(bits, policy, peer_class, direction, protocol, port or 0)
        self.maps["podwire_policy"][key] = PolicyEntry(rule, 0, verdict, match)

    def service(
        self,
        address: str,
        port: int,
        protocol: int,
        backends: dict[int, tuple[str, int]],
        *,
        number: int = 1,
        flags: int = 0,
    ) -> None:
        """A frontend, with a set of its number if `backends` (by id) are many."""
        slots = [Slot(pack(where), at, id) for id, (where, at) in backends.items()]
        many = len(slots) > FRONTEND_SLOTS
        for place, slot in enumerate(slots):
            self.maps["podwire_backends"][slot.backend] = Backend(slot.address, slot.port, protocol)
            if many:
                self.maps["podwire_slots"][SlotKey(number, place)] = slot
        self.maps["podwire_rev_nat"][number] = RevNat(pack(address), port)
        row = frontend(number, slots, many=many, flags=flags)
        self.maps["podwire_frontends"][FrontendKey(pack(address), port, protocol)] = row
        self.services_changed()

    def services_changed(self) -> None:
        """What flows remember of backends is asked again; `service` says so itself."""
        state = self.state[0]
        self.state[0] = msgspec.structs.replace(state, service_epoch=state.service_epoch + 1)

    def bump(self) -> None:
        """Everything that was allowed is asked again."""
        state = self.state[0]
        self.state[0] = msgspec.structs.replace(state, policy_epoch=state.policy_epoch + 1)

    # Packets

    def run(
        self,
        program: str,
        packet: bytes,
        device: int,
        *,
        received_on: int = 0,
        gso_size: int = 0,
        mark: int = 0,
        repeat: int = 1,
    ) -> Outcome:
        """`packet` through `podwire_<program>`. `received_on`: where the stack got it, 0 = from the node."""
        ran = self._run(program, packet, device, received_on, gso_size, mark, repeat)
        left = ran.context.mark if ran.context is not None else 0
        return Outcome(ran.retval, ran.data, self.events(), ran.duration_ns, left)

    def run_unread(self, program: str, packet: bytes, device: int, *, repeat: int = 1) -> None:
        """The same; what it emits waits in the ring."""
        self._run(program, packet, device, 0, 0, 0, repeat)

    def _run(
        self,
        program: str,
        packet: bytes,
        device: int,
        received_on: int,
        gso_size: int,
        mark: int,
        repeat: int,
    ) -> TestRun:
        context = SkbContext(
            ifindex=device,
            ingress_ifindex=received_on,
            gso_size=gso_size,
            gso_segs=2 if gso_size else 0,
            mark=mark,
        )
        run = self.programs[f"podwire_{program}"].test_run
        return namespaces.run(self.namespace, run, packet, context, repeat)

    def from_pod(self, pod: Pod, packet: bytes, **options: Any) -> Outcome:
        return self.run("from_pod", packet, pod.device, **options)

    def to_pod(self, pod: Pod, packet: bytes, **options: Any) -> Outcome:
        return self.run("to_pod", packet, pod.device, **options)

    def from_network(self, packet: bytes, **options: Any) -> Outcome:
        return self.run("from_network", packet, self._devices[UNDERLAY], **options)

    def device(self, name: str) -> int:
        return self._devices[name]

    def shared(self) -> dict[str, Map[Any, Any]]:
        """All maps by name, for another object that is to use them."""
        return dict(self._untyped)

    # What happened

    def events(self) -> np.ndarray[Any, Any]:
        """Those since the last call."""
        return self.ring.read(most=100_000)

    def counted(self) -> dict[tuple[int, int], int]:
        """(reason, direction) → packets, of what was counted at all."""
        totals = {}
        for key, values in self.metrics.items_per_cpu():
            packets = sum(value.packets for value in values)
            if packets:
                totals[key.reason, key.direction] = packets
        return totals

    def connections(self) -> dict[CtKey, CtEntry]:
        """Of both tables."""
        return {
            **dict(self.maps["podwire_conntrack"].items()),
            **dict(self.maps["podwire_ct_overflow"].items()),
        }


def _mac(group: int, number: int) -> bytes:
    return bytes((2, group, 0, 0, 0, number))
