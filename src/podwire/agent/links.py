"""Links for pods that were attached with filters, when nobody is being attached.

In the walk: a pod can talk; what is done here changes nothing for it (`datapath.binding`). Each link keeps
the kernel from making devices for some 10 ms, so they are made once no endpoint has changed for a moment.
On a node where there is always one, they are made between them all the same, after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from podwire.base.aio import boundary, unbroken
from podwire.base.errors import PodwireError
from podwire.state.table import Table, Watch

log = logging.getLogger(__name__)

QUIET = 1.0  # s without a change of an endpoint
LATEST = 15.0  # s after which they are made although there was no such second
AGAIN = 30.0  # s until one that failed is tried again
LOOKING = "looking for filters that can be links"


class Pods(Protocol):
    """What of `datapath.endpoints.Plumbing` is used here."""

    def unbound(self) -> Sequence[str]: ...

    def bind(self, pin: str) -> None: ...


class Links:
    """Binds what `pods` has unbound. `failed` is what could not be bound and why: filters do its work."""

    def __init__(
        self,
        pods: Pods,
        endpoints: Table[Any],
        *,
        quiet: float = QUIET,
        latest: float = LATEST,
        again: float = AGAIN,
    ) -> None:
        self.failed: dict[str, str] = {}
        self._pods = pods
        self._endpoints = endpoints
        self._quiet, self._latest, self._again = quiet, latest, again

    async def run(self) -> None:
        """Until cancelled."""
        with Watch(self._endpoints) as watch:
            while True:
                try:
                    async with asyncio.timeout(self._again if self.failed else None):
                        await watch.next()
                except TimeoutError:
                    pass
                await self._bind_all(watch)

    async def _bind_all(self, watch: Watch) -> None:
        """All there are, also those that come meanwhile, with the pauses that others need."""
        clock = asyncio.get_running_loop().time
        failed: dict[str, str] = {}
        while True:
            latest = clock() + self._latest
            await self._until_quiet(watch, latest)
            waiting: list[str] = []
            with boundary(LOOKING, lambda error: failed.update({LOOKING: str(error)})):
                waiting = [pin for pin in await unbroken(self._pods.unbound) if pin not in failed]
            if not waiting:
                break
            for pin in waiting:
                if watch.pending():
                    await self._until_quiet(watch, latest)
                try:
                    await unbroken(partial(self._pods.bind, pin))
                except (PodwireError, OSError) as error:
                    failed[pin] = str(error)
                    if pin not in self.failed:
                        log.warning("%s stays a filter: %s; trying again in %g s", pin, error, self._again)
        self.failed = failed

    async def _until_quiet(self, watch: Watch, latest: float) -> None:
        clock = asyncio.get_running_loop().time
        while (now := clock()) < latest:
            try:
                async with asyncio.timeout(min(self._quiet, latest - now)):
                    await watch.next()
            except TimeoutError:
                return
