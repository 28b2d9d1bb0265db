"""The same API twice: in this process, and over HTTPS on loopback. Users of `kube.Api` run on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.loopback.kube.api import serving

from podwire.apiserver import ApiServer
from podwire.apiserver.local import Local
from podwire.kube import Api, Client

WAYS = ("in process", "over HTTPS")
both_ways = pytest.mark.parametrize("way", WAYS)


@asynccontextmanager
async def asking(way: str, directory: Path) -> AsyncIterator[tuple[Api, ApiServer]]:
    """An API asked in one of the `WAYS`, and the server behind it."""
    async with serving(directory) as server:
        if way == "in process":
            yield Local(server.objects, "test"), server
            return
        async with Client.from_kubeconfig(directory / "admin.kubeconfig") as client:
            yield client, server
