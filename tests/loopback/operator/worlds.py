"""A cluster for the operator's controllers: an API, asked in one way or the other, and a clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.loopback.kube.apis import asking

from podwire.apiserver import ApiServer
from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import ApiError
from podwire.kube import Api, Resource
from podwire.operator.controllers import Controller, Controllers, Work

Object = dict[str, Any]
QUICK = Backoff(0.005, 0.05)


class World:
    """An API, controllers on it, and a clock that only tests move."""

    def __init__(self, api: Api, server: ApiServer) -> None:
        self.api, self.server = api, server
        self.now = 1000.0
        self.changes: list[str] = []  # writes that had an effect
        server.store.listeners.append(
            lambda change: self.changes.append(f"{change.kind} {change.stored.name}")
        )

    def clock(self) -> float:
        return self.now

    def changed(self, count: int) -> bool:
        """Whether there were so many writes."""
        return len(self.changes) >= count

    @asynccontextmanager
    async def running(self, *controllers: Controller) -> AsyncIterator[Controllers]:
        made = Controllers(self.api, controllers, backoff=QUICK)
        async with cancelling("controllers", made.run()):
            await eventually(lambda: made.idle, timeout=20, what="the first lists")
            yield made

    async def there(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        try:
            return await self.api.get(resource, name, namespace)
        except ApiError as error:
            assert error.code == 404
            return None

    async def touched(self, work: Work, resource: Resource, name: str, namespace: str | None = None) -> None:
        """Somebody changes a label: the controller has looked at it afterwards."""
        done, label = work.done, {"touched": str(len(self.changes))}
        await self.api.patch(resource, name, {"metadata": {"labels": label}}, namespace)
        await eventually(lambda: work.done > done and work.idle, timeout=20, what=f"a look at {name}")


def run(way: str, directory: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asking(way, directory) as (api, server):
            await test(World(api, server))

    asyncio.run(main())
