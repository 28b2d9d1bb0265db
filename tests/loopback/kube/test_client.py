"""The client against the embedded API: verbs, errors, manifests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.loopback.kube.api import MAPS, answering, config_map, serving, with_client

from podwire.apiserver import ApiServer
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.kube import Client
from podwire.kube import resources as known
from podwire.kube.credentials import Access
from podwire.kube.manifests import apply_manifests, delete_manifests, parse
from podwire.kube.resources import Resource


def test_verbs(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        made = await client.create(MAPS, config_map("a", x="1"))
        assert await client.get(MAPS, "a", "default") == made
        made["data"] = {"x": "2"}
        updated = await client.update(MAPS, made)
        with pytest.raises(ApiError) as caught:
            await client.update(MAPS, made)
        assert (caught.value.code, caught.value.reason) == (409, "Conflict")
        patched = await client.patch(MAPS, "a", {"data": {"y": "3"}}, "default")
        assert patched["data"] == {"x": "2", "y": "3"} and patched != updated
        applied = await client.apply(MAPS, config_map("a", z="4"), manager="test")
        assert applied["data"] == {"x": "2", "y": "3", "z": "4"}
        names = [one["metadata"]["name"] for one in await client.list(MAPS, "default")]
        assert names == ["a"]
        await client.delete(MAPS, "a", "default")
        await client.delete(MAPS, "a", "default")
        with pytest.raises(ApiError) as caught:
            await client.get(MAPS, "a", "default")
        assert (caught.value.code, caught.value.reason) == (404, "NotFound")

    with_client(tmp_path, work)


def test_status_and_custom_kinds(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        body = {"metadata": {"name": "e", "namespace": "default"}}
        made = await client.create(known.CILIUM_ENDPOINTS, body)
        made["status"] = {"id": 7, "state": "ready"}
        await client.update_status(known.CILIUM_ENDPOINTS, made)
        assert (await client.get(known.CILIUM_ENDPOINTS, "e", "default"))["status"]["state"] == "ready"
        identity = {"metadata": {"name": "1234"}, "security-labels": {"k8s:app": "web"}}
        assert (await client.create(known.CILIUM_IDENTITIES, identity))["security-labels"] == {
            "k8s:app": "web"
        }
        assert await client.resource_of("cilium.io/v2", "CiliumNode") == known.CILIUM_NODES
        binding = await client.resource_of("apps/v1", "ControllerRevision")
        assert binding == Resource("apps", "v1", "controllerrevisions", "ControllerRevision", True)
        with pytest.raises(ApiError, match="serves no Nothing"):
            await client.resource_of("v1", "Nothing")

    with_client(tmp_path, work)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path):
            pass
        async with Client.from_kubeconfig(tmp_path / "admin.kubeconfig") as client:
            with pytest.raises(Unreachable, match="does not answer"):
                await client.list(MAPS)

    asyncio.run(main())


@pytest.mark.parametrize("text", ["<html>", "[]", '"text"', "[" * 100_000])
def test_an_answer_that_is_no_object(text: str) -> None:
    async def main() -> None:
        async with answering(text) as server, Client(Access(server=server)) as client:
            with pytest.raises(Unreachable, match="does not answer"):
                await client.get(MAPS, "a", "default")

    asyncio.run(main())


def test_a_token_that_cannot_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        access = Access(server="http://127.0.0.1:1", token_file=str(tmp_path / "none"))
        async with Client(access) as client:
            with pytest.raises(Unreachable, match="No such file"):
                await client.get(MAPS, "a", "default")

    asyncio.run(main())


MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: prod}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a, namespace: prod}
  data: {x: "1"}
- apiVersion: cilium.io/v2
  kind: CiliumNetworkPolicy
  metadata: {name: p, namespace: prod}
  spec: {endpointSelector: {}, ingress: [{}]}
"""


def test_manifests_are_applied_in_order_and_removed(tmp_path: Path) -> None:
    async def work(client: Client, server: ApiServer) -> None:
        manifests = parse(MANIFESTS, "all.yaml")
        for _ in range(2):
            applied = await apply_manifests(client, manifests)
            assert [one["kind"] for one in applied] == ["Namespace", "ConfigMap", "CiliumNetworkPolicy"]
        wrong = MANIFESTS.replace("endpointSelector: {}", "endpointSelector: 7")
        with pytest.raises(InvalidObject, match=r"^all.yaml:6: .*spec.endpointSelector"):
            await apply_manifests(client, parse(wrong, "all.yaml"))
        await delete_manifests(client, manifests[1:])
        assert await client.list(MAPS, "prod", field_selector="metadata.name=a") == []

    with_client(tmp_path, work)
