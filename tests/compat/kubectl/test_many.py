"""Five thousand pods: listed, watched and printed without trouble."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from podwire.kube import Client
from podwire.kube import resources as known

pytestmark = pytest.mark.compat
MANY = 5000


def fill(cluster: Any, value: str) -> None:
    """Write MANY pods straight into the store, in the server's own thread."""

    async def write() -> None:
        store = cluster.server.store
        template = cluster.server.objects.find("pods", cluster.namespace, "first")
        for number in range(MANY):
            name = f"p{number:04}"
            meta = {**template["metadata"], "name": name, "uid": f"{name}-uid", "labels": {"value": value}}
            store.put("pods", cluster.namespace, name, {**template, "metadata": meta})
            if number % 200 == 0:
                await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(write(), cluster.loop).result(100)


def empty(cluster: Any) -> None:
    async def remove() -> None:
        for number in range(MANY):
            cluster.server.store.remove("pods", cluster.namespace, f"p{number:04}")

    asyncio.run_coroutine_threadsafe(remove(), cluster.loop).result(100)


async def follow(cluster: Any) -> None:
    async with Client.from_kubeconfig(Path(cluster.kubeconfig)) as client:
        stream = client.watch(known.PODS, cluster.namespace)
        seen: dict[str, str] = {}
        async for event in stream:
            if event.kind == "SYNCED":
                break
            seen[event.object["metadata"]["name"]] = event.object["metadata"]["labels"].get("value", "")
        assert list(seen.values()).count("one") == MANY
        writing = asyncio.get_running_loop().run_in_executor(None, fill, cluster, "two")
        changed = 0
        async for event in stream:
            assert event.kind in ("MODIFIED", "RESTARTED", "SYNCED"), event
            if event.kind == "MODIFIED":
                seen[event.object["metadata"]["name"]] = event.object["metadata"]["labels"].get("value", "")
                changed += seen[event.object["metadata"]["name"]] == "two"
            if changed == MANY:
                break
        await writing
        await stream.aclose()  # type: ignore[attr-defined]


def test_five_thousand_pods(kubectl: Any) -> None:
    overrides = '{"spec":{"schedulerName":"nobody"}}'
    kubectl("run", "first", "--image=x", f"--overrides={overrides}")
    fill(kubectl, "one")
    try:
        assert kubectl("get", "pods", "--no-headers").count("\n") == MANY + 1
        assert kubectl("get", "pods", "-l", "value=one", "-o", "name").count("pod/") == MANY
        asyncio.run(follow(kubectl))
    finally:
        empty(kubectl)
