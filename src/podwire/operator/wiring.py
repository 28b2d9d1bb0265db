"""The operator: all its controllers on an API, and which of several operators runs them.

In a sandbox its control process runs them on the embedded API, as the only one. In a cluster ``podwire
operator`` runs some replicas of which one leads; each begins its term knowing nothing, so that it acts on
nothing that was true in another's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from podwire.base.aio import Supervised
from podwire.base.telemetry import Metrics
from podwire.kube import Api, Client
from podwire.kube.lease import Election, LeadershipLost
from podwire.model.cluster import DEFAULT, Cluster
from podwire.operator import meters, orphans, serve
from podwire.operator.controllers import Controller, Controllers
from podwire.operator.identities import UnusedIdentities
from podwire.operator.podcidrs import PodCidrs, Pool, apart
from podwire.operator.policies import PolicyConditions

log = logging.getLogger(__name__)
Object = dict[str, Any]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster's operator is told. Times are seconds."""

    cluster: Cluster = DEFAULT
    identity_grace: float = 900.0  # an identity is unused for so long before it is marked, and then deleted
    orphan_grace: float = 300.0  # an object is without what it is about for so long before it is deleted
    pools: tuple[tuple[str, int], ...] = ()  # CIDR, bits of a node's part; empty: others give pod CIDRs

    def __post_init__(self) -> None:
        """ConfigError for pools that are none: told now, and not when it leads."""
        apart(self.made_pools())

    def made_pools(self) -> list[Pool]:
        """All of each is free."""
        return [Pool(cidr, size) for cidr, size in self.pools]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """How this operator stands for election."""

    identity: str
    namespace: str = "kube-system"
    lease: str = "podwire-operator"
    lasts: float = 15.0
    retry: float = 2.0


def made(api: Api, parse: Callable[[Object], Any], settings: Settings) -> list[Controller]:
    """All controllers. `parse` raises InvalidObject for a policy that no agent would take."""
    found: list[Controller] = [
        PolicyConditions(api, parse),
        UnusedIdentities(api, grace=settings.identity_grace, numbers=settings.cluster.numbers),
        orphans.endpoints(api, grace=settings.orphan_grace),
        orphans.nodes(api, grace=settings.orphan_grace),
    ]
    if settings.pools:
        found.append(PodCidrs(api, settings.made_pools()))
    return found


class Operator:
    """One replica. `controllers` are those of its present term; None while another leads."""

    def __init__(
        self, client: Client, candidate: Candidate, parse: Callable[[Object], Any], settings: Settings
    ) -> None:
        self.controllers: Controllers | None = None
        self.election = Election(
            client,
            candidate.lease,
            candidate.identity,
            namespace=candidate.namespace,
            lasts=candidate.lasts,
            retry=candidate.retry,
        )
        self.metrics = Metrics()
        meters.declare(self.metrics, self.election, lambda: self.controllers)
        self._parse = parse
        self._settings = settings

    async def run(self, told: asyncio.Event, address: tuple[str, int] | None = None) -> None:
        """Until `told` to stop; metrics are served at `address`."""
        async with Supervised("operator") as group:
            if address is not None:
                group.start("serve metrics", serve.run(self.metrics, *address))
            group.start("stand for election", self._stand())
            await told.wait()

    async def _stand(self) -> None:
        while True:
            try:
                await self.election.lead(self._term)
            except LeadershipLost as error:
                log.warning("%s; standing for election again", error)

    async def _term(self, api: Api) -> None:
        self.controllers = Controllers(api, made(api, self._parse, self._settings))
        try:
            await self.controllers.run()
        finally:
            self.controllers = None
