"""This node's address pools: one for each of its pod CIDRs.

The first pod gets the first address (10.0.2.1 …), and addresses go round, so that one that was
given back is not soon given again. The network's own address, the last one (IPv4: broadcast) and the
router's are never given. An address that was asked for with an expiration and that nobody attaches
comes back after `GRACE`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from podwire.base.addresses import IPAddress, IPNetwork
from podwire.base.errors import ConfigError, Conflict, InvalidObject, NotFound
from podwire.base.numbers import Circle

GRACE = 600.0  # s, as Cilium's plugin expects


@dataclass(frozen=True, slots=True)
class Given:
    """What an owner got: one address a family the node has. `expires` names the reservation."""

    ipv4: str = ""
    ipv6: str = ""
    expires: str = ""


class Pool:
    """One CIDR. `kept` are addresses never given."""

    def __init__(self, cidr: str, kept: Iterable[str]) -> None:
        self.network: IPNetwork = ipaddress.ip_network(cidr)
        self.family = self.network.version
        self.taken: dict[str, str] = {}  # address → owner
        self._kept = {ipaddress.ip_address(address) for address in kept}
        self._kept |= {self.network.network_address, self.network.broadcast_address}
        # Offsets inside the network. The first one is the network's own address, which is kept.
        self._circle = Circle(0, self.network.num_addresses - 1)
        self._last = 0
        self.leaving = False  # no more the node's, but for what is taken

    @property
    def size(self) -> int:
        """Addresses that can be given."""
        inside = sum(1 for address in self._kept if address in self.network)
        return self.network.num_addresses - inside

    def __contains__(self, address: str) -> bool:
        return ipaddress.ip_address(address) in self.network

    def take_next(self, owner: str) -> str:
        """The next free address; Conflict if there is none."""
        offset = self._circle.next(self._is_taken, most=len(self.taken) + len(self._kept))
        if offset is None:
            raise Conflict(
                f"all {self.size} addresses of {self.network} are taken",
                hint="remove pods from this node, or give it a larger pod CIDR",
            )
        self._last = offset
        address = str(self.network[offset])
        self.taken[address] = owner
        return address

    def _is_taken(self, offset: int) -> bool:
        address: IPAddress = self.network[offset]
        return address in self._kept or str(address) in self.taken

    def take(self, address: str, owner: str) -> None:
        self.taken[address] = owner
        offset = int(ipaddress.ip_address(address)) - int(self.network.network_address)
        self._last = max(self._last, offset)
        self._circle.begin_after(self._last)


class Pools:
    """All pools of this node."""

    def __init__(self, cidrs: Iterable[str], routers: Iterable[str]) -> None:
        self._pools: list[Pool] = []
        self.use(cidrs, routers)
        self._reserved: dict[str, tuple[float, str]] = {}  # address → (until, reservation)

    def use(self, cidrs: Iterable[str], routers: Iterable[str]) -> None:
        """The pod CIDRs from now on. One that is left out gives no more addresses; those that pods have
        stay theirs."""
        kept = tuple(routers)
        before = {str(pool.network): pool for pool in self._pools}
        try:
            made = [Pool(cidr, kept) for cidr in cidrs]
        except ValueError as error:
            raise ConfigError(f"pod CIDR of this node: {error}") from error
        self._pools = [before.pop(str(pool.network), pool) for pool in made]
        for pool in self._pools:
            pool.leaving = False
        for pool in before.values():
            pool.leaving = True
            self._pools.append(pool)

    def leaving(self) -> dict[str, tuple[str, ...]]:
        """CIDR that the node has no more → addresses of it that are still taken."""
        return {str(pool.network): tuple(pool.taken) for pool in self._pools if pool.leaving and pool.taken}

    def allocate(self, owner: str, family: str = "", *, expiration: bool = False) -> Given:
        """One address of each family the node has, or of `family` (ipv4, ipv6). All or nothing."""
        chosen = [pool for pool in self._pools if not pool.leaving and family in ("", f"ipv{pool.family}")]
        if not chosen:
            raise InvalidObject("family", f"this node has no {family} pod CIDR")
        got: dict[int, str] = {}
        try:
            for pool in chosen:
                if pool.family not in got:
                    got[pool.family] = pool.take_next(owner)
        except Conflict:
            for address in got.values():
                self.release(address)
            raise
        reservation = str(uuid.uuid4()) if expiration else ""
        if expiration:
            until = time.monotonic() + GRACE
            self._reserved |= {address: (until, reservation) for address in got.values()}
        return Given(got.get(4, ""), got.get(6, ""), reservation)

    def attached(self, address: str) -> None:
        """The address is in use: it does not expire any more."""
        self._reserved.pop(address, None)

    def release(self, address: str) -> None:
        """Give an address back; NotFound if nobody has it."""
        self._reserved.pop(address, None)
        for pool in self._pools:
            if pool.taken.pop(address, None) is not None:
                return
        raise NotFound(f"address {address} is not allocated on this node")

    def restore(self, owners: Mapping[str, str]) -> None:
        """Addresses that endpoints of an earlier life have. Others of theirs were never given."""
        for address, owner in owners.items():
            for pool in self._pools:
                if address in pool:
                    pool.take(address, owner)

    def allocations(self) -> dict[str, str]:
        """Address → owner."""
        return {address: owner for pool in self._pools for address, owner in pool.taken.items()}

    def capacity(self) -> list[tuple[str, int, int]]:
        """(CIDR, taken, size) of each pool."""
        return [(str(pool.network), len(pool.taken), pool.size) for pool in self._pools if not pool.leaving]

    def expire(self, now: float) -> list[str]:
        """Give back what was reserved until before `now` and never attached."""
        gone = [address for address, (until, _) in self._reserved.items() if until < now]
        for address in gone:
            self.release(address)
        return gone

    async def run(self) -> None:
        """Expire reservations, until cancelled."""
        while True:
            await asyncio.sleep(GRACE / 20)
            self.expire(time.monotonic())
