"""Leader election by a Lease: one of several processes works, the others wait.

As client-go does it: the holder renews, another takes the lease once it was not renewed for as long
as it promised. Time is judged by one's own clock since one saw the last change, never by the clock
of the holder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from podwire.base.aio import cancelling
from podwire.base.errors import ApiError, Unreachable
from podwire.kube.client import Client
from podwire.kube.resources import LEASES

Object = dict[str, Any]
log = logging.getLogger(__name__)


class LeadershipLost(Exception):
    """The lease was not renewed in time: somebody else may lead now, so this process must stop."""


class Election:
    """A candidate called `identity` for the lease `name`. All times are seconds."""

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        namespace: str = "kube-system",
        lasts: float = 15.0,
        retry: float = 2.0,
    ) -> None:
        self._client = client
        self._place = (name, namespace)
        self._identity = identity
        self._lasts = lasts
        self._retry = retry
        self._seen: tuple[str, float] = ("", 0.0)  # resourceVersion, when it was first seen

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """Wait to lead, then lead for as long as the block runs; the lease is given back after it.

        If it cannot be renewed the block is cancelled and LeadershipLost raised.
        """
        while not await self._try():
            await asyncio.sleep(self._retry)
        block = asyncio.current_task()
        lost = asyncio.Event()
        async with cancelling(f"renew the lease {self._place[0]}", self._renew(block, lost)):
            try:
                yield
            except asyncio.CancelledError:
                if lost.is_set():
                    raise LeadershipLost(
                        f"{self._identity} could not renew the lease {self._place[0]}"
                    ) from None
                raise
            finally:
                if not lost.is_set():
                    await self._release()

    async def _renew(self, block: asyncio.Task[Any] | None, lost: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while loop.time() - renewed < self._lasts * 2 / 3:
            await asyncio.sleep(self._retry)
            if await self._try():
                renewed = loop.time()
        lost.set()
        if block is not None:
            block.cancel()

    async def _try(self) -> bool:
        """Take or renew the lease; whether it is ours now."""
        try:
            lease = await self._read()
            if lease is None:
                await self._client.create(LEASES, self._body(None))
                return True
            if not self._free(lease):
                return False
            await self._client.update(LEASES, self._body(lease))
            return True
        except ApiError as error:
            if error.code != 409:  # somebody was faster
                log.warning("lease %s: %s", self._place[0], error)
        except Unreachable as error:
            log.debug("lease %s: %s", self._place[0], error)
        return False

    def _free(self, lease: Object) -> bool:
        now = asyncio.get_running_loop().time()
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, now)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        return holder in ("", self._identity) or now - self._seen[1] > float(
            spec.get("leaseDurationSeconds") or 0
        )

    async def _read(self) -> Object | None:
        try:
            return await self._client.get(LEASES, *self._place)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def _release(self) -> None:
        try:
            lease = await self._read()
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.update(LEASES, lease)
        except (ApiError, Unreachable) as error:
            log.debug("lease %s is not given back: %s", self._place[0], error)

    def _body(self, old: Object | None) -> Object:
        name, namespace = self._place
        spec = dict((old or {}).get("spec") or {})
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if old else 0)
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._lasts)),
            "renewTime": moment,
        }
        metadata = (old or {}).get("metadata") or {"name": name, "namespace": namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
