"""This node's own object, followed: what the kernel and the pools were told at the start is told anew.

In the walk: table `nodes` has this node's row, and stages that read it (identity.ipcache, routes, reports)
follow it by themselves. Not so what is no row: the constants of the programs (the outer source of tunnels,
who is this node), the tunnel's MTU, router addresses, address pools. That is done here, one change after
the other, and tried again while the kernel refuses.

A row without addresses or pod CIDRs, or none, says nothing that one could be: the node goes on as it was,
and says so. So do pods whose addresses are of a CIDR that the node has no more: an address cannot be
taken from under a process.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from podwire.agent.kernel import Kernel
from podwire.base.addresses import exact, family
from podwire.base.aio import Backoff, unbroken
from podwire.base.attempts import Attempts
from podwire.base.config import AgentConfig
from podwire.base.errors import PodwireError
from podwire.ipam.pools import Pools
from podwire.model.cluster import OWN
from podwire.state.reconcile import Reconciler
from podwire.state.table import Watch
from podwire.state.tables import NodeRow
from podwire.state.views import ReadTables

log = logging.getLogger(__name__)


class Itself:
    """Makes the node what its object says; `me` is what it is now."""

    def __init__(
        self,
        tables: ReadTables,
        kernel: Kernel,
        pools: Pools,
        routes: Reconciler[NodeRow],
        me: NodeRow,
        *,
        backoff: Backoff = Backoff(0.5, 30.0),
    ) -> None:
        self.tables = tables
        self.me = me
        self._kernel = kernel
        self._pools = pools
        self._routes = routes
        self._backoff = backoff
        self._failures = 0
        self._failure = ""
        self._tried: dict[str, None] = {}  # router addresses of objects whose steps were not all done
        self.attempts = Attempts()
        self._unusable = ""  # why what the object says now is not followed

    async def run(self) -> None:
        """Until cancelled."""
        # An earlier agent's programs on maps of their own run until `take_over`.
        await self._kernel.taken_over.wait()
        with Watch(self.tables.nodes) as watch:
            while True:
                try:
                    async with asyncio.timeout(
                        self._backoff.after(self._failures) if self._failures else None
                    ):
                        await watch.next()
                except TimeoutError:
                    pass  # what the kernel refused is tried again
                await self.step()

    async def step(self) -> None:
        """Be what the object says now, as far as it says anything."""
        row = self.tables.nodes.get((OWN, self.me.name))
        self._unusable = _unusable(row)
        if row is None or self._unusable:
            return
        if _place(row) == _place(self.me) and not self._failures:
            self.me = row
            return
        try:
            self._pools.use(own_cidrs(row, self._kernel.config), row.router_addresses)
            # Of an object that was refused half way, too: it may be put back, and nobody else knows of them.
            had = dict.fromkeys((*self.me.router_addresses, *self._tried))
            gone = [one for one in had if one not in row.router_addresses]
            self._tried |= dict.fromkeys(row.router_addresses)
            await unbroken(partial(self._kernel.become, row, gone))
            self._routes.anew()  # those through a tunnel say how much it carries
        except PodwireError as error:
            self._failures += 1
            self.attempts.failed(error)
            self._failure = f"this node is still what its object was before: {error}"
            if self._failures == 1:
                log.warning("%s", self._failure)
            return
        log.info("this node has now %s and %s", ", ".join(row.addresses), ", ".join(row.pod_cidrs))
        self.attempts.succeeded()
        self.me, self._failures, self._failure, self._tried = row, 0, "", {}

    def problem(self) -> str:
        """What of the object cannot be followed; empty = nothing."""
        found = [self._unusable and f"{self._unusable}; going on as before", self._failure, self._nowhere()]
        found += [
            f"{len(taken)} pods have addresses of {cidr}, which is no pod CIDR of this node any more: "
            f"other nodes do not reach them until they are made anew"
            for cidr, taken in self._pools.leaving().items()
        ]
        return "; ".join(filter(None, found))

    def _nowhere(self) -> str:
        """An address that only the object has: other nodes send to it, and nobody is there."""
        local = self.tables.local_addresses
        if not local.ready:
            return ""
        internal = {family(one): one for one in reversed(self.me.addresses)}
        missing = [one for one in internal.values() if exact(one) not in local]
        return f"the object's address {', '.join(missing)} is on no device of this node" if missing else ""


def own_cidrs(row: NodeRow, config: AgentConfig) -> list[str]:
    """The pod CIDRs of families that are on."""
    enabled = {4: config.enable_ipv4, 6: config.enable_ipv6}
    return [one for one in row.pod_cidrs if enabled[family(one)]]


def _place(row: NodeRow) -> tuple[tuple[str, ...], ...]:
    """What a node is told of its row."""
    return row.addresses, row.pod_cidrs, row.router_addresses


def _unusable(row: NodeRow | None) -> str:
    if row is None:
        return "there is no object of this node"
    missing = [
        name for name, there in (("addresses", row.addresses), ("pod CIDRs", row.pod_cidrs)) if not there
    ]
    return f"this node's object names no {' and no '.join(missing)}" if missing else ""
