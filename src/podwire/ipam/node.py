"""The pod addresses of one node: given out, remembered, taken back.

In the walk: the node's row says which prefixes it has; who attaches a pod asks `allocate`, and the
endpoint's row, once it is there, keeps the addresses until it goes. What is allocated with an
expiration and never becomes an endpoint comes back by itself. After a restart the rows of the
endpoints say what is taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from podwire.base.addresses import family
from podwire.base.errors import Conflict, NotFound
from podwire.ipam.pool import Pool
from podwire.state.table import Batch, Watch
from podwire.state.tables import EndpointRow, NodeRow, Tables

EXPIRATION = 600.0  # s; Cilium's
log = logging.getLogger(__name__)


class Allocation(msgspec.Struct, frozen=True):
    """What an owner got; empty where the node has no such family."""

    ipv4: str = ""
    ipv6: str = ""


class NodeAddresses:
    """One node's pools. Times are seconds of one clock that never goes back."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.pools: dict[int, Pool] = {}  # family → pool
        self._expires: dict[str, float] = {}  # address → when it comes back
        self._kept: set[str] = set()  # addresses of endpoints

    def configure(self, prefixes: Sequence[str]) -> None:
        """The node's pod prefixes. One in use cannot be replaced: Conflict."""
        for prefix in prefixes:
            known = self.pools.get(family(prefix))
            if known is None:
                self.pools[family(prefix)] = Pool(prefix)
            elif str(known.network) != prefix:
                if len(known):
                    problem = f"this node's pod prefix cannot change from {known.network} to {prefix}"
                    raise Conflict(
                        problem, hint="drain the node first: its pods have addresses of the old one"
                    )
                self.pools[family(prefix)] = Pool(prefix)

    def routers(self) -> tuple[str, ...]:
        """The gateway addresses the node holds in its pod prefixes."""
        return tuple(pool.router for _, pool in sorted(self.pools.items()))

    def allocate(self, owner: str, *, only: int = 0, expires: float | None = None) -> Allocation:
        """An address of each family (or of family `only`) for `owner`; all or nothing.

        `expires` is when they come back if no endpoint has them by then. Conflict if a pool is
        exhausted, NotFound if the node has no prefix (yet).
        """
        chosen = [only] if only else sorted(self.pools)
        if not chosen or any(version not in self.pools for version in chosen):
            which = f"IPv{only} " if only else ""
            raise NotFound(f"this node has no {which}pod prefix (yet)", hint="does its Node have podCIDRs?")
        given: dict[int, str] = {}
        try:
            for version in chosen:
                given[version] = self.pools[version].give(owner)
        except Conflict:
            for version, address in given.items():
                self.pools[version].release(address)
            raise
        if expires is not None:
            self._expires |= dict.fromkeys(given.values(), expires)
        return Allocation(given.get(4, ""), given.get(6, ""))

    def take(self, address: str, owner: str) -> None:
        """Note an address that is in use already; Conflict if it is another's."""
        pool = self.pools.get(family(address))
        if pool is None:
            raise Conflict(f"{address} is no pod address of this node")
        pool.take(address, owner)

    def release(self, address: str) -> None:
        """Give it back; NotFound if nobody has it."""
        pool = self.pools.get(family(address))
        if pool is None:
            raise NotFound(f"address {address} is not in use")
        pool.release(address)
        self._expires.pop(address, None)
        self._kept.discard(address)

    def allocations(self) -> dict[str, str]:
        """Address → owner."""
        return {address: owner for pool in self.pools.values() for address, owner in pool}

    def expire(self, now: float) -> list[str]:
        """Take back what no endpoint has in time; those addresses."""
        late = [address for address, expires in self._expires.items() if expires <= now]
        for address in late:
            self.release(address)
            log.info("address %s comes back: no endpoint has it", address)
        return late

    def next_expiration(self) -> float | None:
        return min(self._expires.values(), default=None)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        with Watch(self.tables.nodes, self.tables.endpoints) as watch:
            while True:
                expires = self.next_expiration()
                # Not longer than a minute: an allocation made meanwhile has its own time.
                wait = 60.0 if expires is None else min(60.0, max(0.0, expires - loop.time()))
                try:
                    async with asyncio.timeout(wait):
                        self.step(*await watch.next())
                except TimeoutError:
                    self.expire(loop.time())

    def step(self, nodes: Batch[NodeRow], endpoints: Batch[EndpointRow]) -> None:
        """Follow the node's prefixes, and keep what endpoints have."""
        for node in nodes:
            if node.new is not None and node.new.local:
                try:
                    self.configure(node.new.pod_cidrs)
                except Conflict as error:
                    log.error("node %s: %s", node.new.name, error)  # noqa: TRY400
                self._keep_all()
        for endpoint in endpoints:
            before, after = _addresses(endpoint.old), _addresses(endpoint.new)
            for address in before - after:
                if address in self._kept:
                    self.release(address)
            if endpoint.new is not None:
                self._keep(endpoint.new)

    def _keep_all(self) -> None:
        for row in self.tables.endpoints:
            self._keep(row)

    def _keep(self, row: EndpointRow) -> None:
        for address in _addresses(row):
            pool = self.pools.get(family(address))
            if address in self._kept or pool is None:
                continue
            try:
                if pool.owner(address) is None:  # of an earlier life of the agent
                    pool.take(address, f"{row.namespace}/{row.pod}")
            except Conflict as error:
                log.warning("endpoint %d: %s", row.id, error)
                continue
            self._kept.add(address)
            self._expires.pop(address, None)


def _addresses(row: EndpointRow | None) -> set[str]:
    return set() if row is None else {address for address in (row.ipv4, row.ipv6) if address}
