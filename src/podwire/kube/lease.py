"""Leader election by a Lease: one of several processes works, the others wait.

As client-go does it: the holder renews, another takes the lease once it was not renewed for as long as it
promised, by its own clock since it saw the last change; clocks of different machines are never compared. Who
leads stops well before others may begin. A process that was stopped, or whose machine slept, may not know
that it is too late: so what it writes goes through `Led`, which looks at the clock before each write.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from podwire.base import moments
from podwire.base.aio import Supervised
from podwire.base.errors import ApiError, PodwireError, Unreachable
from podwire.kube.api import MERGE, Api, Items
from podwire.kube.resources import LEASES, Resource
from podwire.kube.watch import Event

Object = dict[str, Any]
T = TypeVar("T")
log = logging.getLogger(__name__)

_GIVING_BACK = 2.0  # s to give the lease back in, before others have to wait for its end


class LeadershipLost(PodwireError):
    """The lease was not renewed in time: somebody else may lead now."""


def clock() -> float:
    """Seconds, those counted in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Election:
    """A candidate called `identity` for the lease `name`. All times are seconds."""

    def __init__(
        self,
        api: Api,
        name: str,
        identity: str,
        *,
        namespace: str = "kube-system",
        lasts: float = 15.0,
        retry: float = 2.0,
    ) -> None:
        self.leads = False
        self.terms = 0  # so often this process began to lead
        self._api = api
        self._place = (name, namespace)
        self._identity = identity
        self._lasts = lasts
        self._retry = retry
        self._until = 0.0  # until when nobody else can have begun
        self._seen: tuple[str, float] = ("", 0.0)  # version of the lease, when it was first seen

    @property
    def left(self) -> float:
        """Seconds for which this process surely leads; nothing may be written when there are none."""
        return self._until - clock() if self.leads else 0.0

    async def lead(self, work: Callable[[Api], Coroutine[Any, Any, None]]) -> None:
        """Wait to lead, and do `work`, which does not end, on an API that refuses writes when it is too late.

        Ends with LeadershipLost, after the work has ended. Cancelled, it gives the lease back after it.
        """
        while not await self._try():
            await asyncio.sleep(self._retry * random.uniform(0.8, 1.2))
        self.leads = True
        self.terms += 1
        log.info("%s leads: it has the lease %s", self._identity, self._place[0])
        try:
            async with Supervised(f"lead {self._place[0]}") as group:
                group.start("work", work(Led(self._api, self)))
                await self._renew()
                raise LeadershipLost(f"{self._identity} could not renew the lease {self._place[0]} in time")
        finally:
            held = self.left > 0
            self.leads = False
            if held:
                await self._give_back()

    async def _renew(self) -> None:
        """As long as it can be."""
        while (left := self.left) > 0:
            await asyncio.sleep(min(self._retry, left))
            try:
                async with asyncio.timeout(max(self.left, 0.0)):
                    await self._try()
            except TimeoutError:
                return

    async def _try(self) -> bool:
        """Take or renew the lease; whether it is ours now."""
        began = clock()
        try:
            lease = await self._read()
            if lease is not None and not self._free(lease):
                self._until = 0.0
                return False
            body = self._body(lease)
            await (self._api.update(LEASES, body) if lease else self._api.create(LEASES, body))
        except ApiError as error:
            if error.code != 409:  # somebody was faster
                log.warning("lease %s: %s", self._place[0], error)
            return False
        except Unreachable as error:
            log.debug("lease %s: %s", self._place[0], error)
            return False
        # Others count from when they see it, which is later than it was asked for.
        self._until = began + self._lasts * 2 / 3
        return True

    def _free(self, lease: Object) -> bool:
        now = time.monotonic()  # that this process slept says nothing of the others
        version = str(lease["metadata"]["resourceVersion"])
        if self._seen[0] != version:
            self._seen = (version, now)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        lasts = float(spec.get("leaseDurationSeconds") or 0)
        return holder in ("", self._identity) or now - self._seen[1] > lasts

    async def _read(self) -> Object | None:
        try:
            return await self._api.get(LEASES, *self._place)
        except ApiError as error:
            if error.code != 404:
                raise
            return None

    async def _give_back(self) -> None:
        try:
            async with asyncio.timeout(_GIVING_BACK):
                lease = await self._read()
                if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._api.update(LEASES, lease)
        except (ApiError, Unreachable, TimeoutError) as error:
            log.debug("lease %s is not given back: %s", self._place[0], error)

    def _body(self, old: Object | None) -> Object:
        name, namespace = self._place
        spec = dict((old or {}).get("spec") or {})
        moment = moments.now(micro=True)
        if spec.get("holderIdentity") != self._identity or not self.leads:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if old else 0)
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._lasts)),
            "renewTime": moment,
        }
        metadata = (old or {}).get("metadata") or {"name": name, "namespace": namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


class Led:
    """An API for who leads: what is written is written while it leads, or not at all."""

    def __init__(self, api: Api, election: Election) -> None:
        self._api = api
        self._election = election

    async def _write(self, write: Callable[[], Awaitable[T]]) -> T:
        left = self._election.left
        if left <= 0:
            raise LeadershipLost("nothing is written: somebody else may lead by now")
        try:
            async with asyncio.timeout(left):
                return await write()
        except TimeoutError as error:
            raise Unreachable("the API did not answer while this process surely led") from error

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        return await self._api.get(resource, name, namespace)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Items:
        return await self._api.list(
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        )

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[Event]:
        return self._api.watch(
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        )

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        return await self._write(lambda: self._api.create(resource, body, namespace))

    async def update(self, resource: Resource, body: Object) -> Object:
        return await self._write(lambda: self._api.update(resource, body))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        subresource: str = "",
        content_type: str = MERGE,
    ) -> Object:
        return await self._write(
            lambda: self._api.patch(
                resource, name, patch, namespace, subresource=subresource, content_type=content_type
            )
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        only: Mapping[str, str] = {},
    ) -> None:
        await self._write(lambda: self._api.delete(resource, name, namespace, only=only))
