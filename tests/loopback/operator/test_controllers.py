"""The operator's controllers on an API, in process and over HTTPS: the same tests, the same controllers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.loopback.kube.apis import both_ways
from tests.loopback.operator.worlds import World, run

from podwire.base.aio import eventually
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.kube import Api, Event, resources
from podwire.model.cluster import Cluster
from podwire.operator import orphans
from podwire.operator.identities import UnusedIdentities
from podwire.operator.podcidrs import EXHAUSTED, SHARED, PodCidrs, Pool
from podwire.operator.policies import PolicyConditions
from podwire.stores.identities import UNUSED, document

Object = dict[str, Any]
CEP, NODES = resources.CILIUM_ENDPOINTS, resources.NODES
IDENTITIES = resources.CILIUM_IDENTITIES


async def endpoint(world: World, name: str, identity: int, owner: str = "") -> Object:
    metadata: Object = {"name": name, "namespace": "default"}
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": owner}]
    await world.api.create(CEP, {"metadata": metadata}, "default")
    status = {"status": {"identity": {"id": identity, "labels": []}}}
    return await world.api.patch(CEP, name, status, "default", subresource="status")


# --- policies


def parse(item: Object) -> None:
    if "description" in item["spec"]:
        raise InvalidObject("spec.description", "is not supported")


@both_ways
def test_policies_are_judged_once_and_again_when_they_change(way: str, tmp_path: Path) -> None:
    cnp = resources.CILIUM_NETWORK_POLICIES

    async def test(world: World) -> None:
        spec = {"endpointSelector": {}, "ingress": [{}]}
        for name, more in (("good", {}), ("bad", {"description": "no"})):
            body = {"metadata": {"name": name, "namespace": "default"}, "spec": {**spec, **more}}
            await world.api.create(cnp, body)

        async def says(name: str) -> tuple[str, str]:
            found = (await world.api.get(cnp, name, "default")).get("status", {}).get("conditions")
            return (found[0]["status"], found[0]["message"]) if found else ("", "")

        async with world.running(PolicyConditions(world.api, parse)) as controllers:
            assert (await says("good"))[0] == "True"
            assert await says("bad") == ("False", "spec.description: is not supported")
            await world.api.patch(cnp, "bad", {"spec": {"description": None}}, "default")

            async def right() -> bool:
                return (await says("bad"))[0] == "True"

            await eventually(right, timeout=20, what="the other condition")
            await eventually(lambda: controllers.idle, timeout=20, what="rest")
        told = [one for one in world.changes if one.startswith("MODIFIED")]
        assert sorted(told) == ["MODIFIED bad"] * 3 + ["MODIFIED good"]

    run(way, tmp_path, test)


# --- identities


@both_ways
@pytest.mark.parametrize("cluster", [Cluster(), Cluster("west", 5)], ids=["alone", "of a mesh"])
def test_an_identity_goes_after_two_whiles_without_use(way: str, tmp_path: Path, cluster: Cluster) -> None:
    idle, used = str(cluster.numbers[44]), str(cluster.numbers[45])
    foreign = str(Cluster("east", 6).numbers[44])  # that no agent here gives

    async def test(world: World) -> None:
        for name in (idle, used, foreign):
            await world.api.create(IDENTITIES, document(int(name), (f"k8s:app=a{name}",)))
        await endpoint(world, "web", int(used))
        unused = UnusedIdentities(world.api, grace=100.0, numbers=cluster.numbers, clock=world.clock)
        async with world.running(unused) as controllers:
            (work,) = controllers.works
            world.now += 99
            await world.touched(work, IDENTITIES, idle)
            assert UNUSED not in (await world.api.get(IDENTITIES, idle))["metadata"].get("annotations", {})
            world.now += 2
            await world.touched(work, IDENTITIES, idle)

            async def marked() -> bool:
                return UNUSED in (await world.api.get(IDENTITIES, idle))["metadata"].get("annotations", {})

            await eventually(marked, timeout=20, what="the mark")
            await eventually(lambda: work.idle, timeout=20, what="the mark's event")
            world.now += 99
            await world.touched(work, IDENTITIES, idle)
            assert await marked()
            world.now += 2
            await world.touched(work, IDENTITIES, idle)

            async def gone() -> bool:
                return await world.there(IDENTITIES, idle) is None

            await eventually(gone, timeout=20, what="the deletion")
            for name in (used, foreign):
                assert await world.there(IDENTITIES, name) is not None
            assert unused.deleted == 1

    run(way, tmp_path, test)


@both_ways
def test_an_identity_that_is_used_again_is_kept_and_its_mark_goes(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.api.create(IDENTITIES, document(300, ("k8s:app=a",)))
        mark = {"metadata": {"annotations": {UNUSED: "some time"}}}
        await world.api.patch(IDENTITIES, "300", mark)  # by who led before
        unused = UnusedIdentities(world.api, grace=100.0, clock=world.clock)
        async with world.running(unused) as controllers:
            (work,) = controllers.works
            await endpoint(world, "web", 300)

            async def unmarked() -> bool:
                found = await world.api.get(IDENTITIES, "300")
                return UNUSED not in found["metadata"].get("annotations", {})

            await eventually(unmarked, timeout=20, what="the mark to go")
            await world.api.delete(CEP, "web", "default")
            await eventually(lambda: not unused._of, timeout=20, what="the end of its use")
            await world.touched(work, IDENTITIES, "300")
            world.now += 101
            # An agent that begins to use it takes the mark away: the deletion is of another version then.
            await world.touched(work, IDENTITIES, "300")
            await eventually(lambda: work.idle, timeout=20, what="the mark's event")
            world.now += 50
            await world.api.patch(IDENTITIES, "300", {"metadata": {"annotations": {UNUSED: None}}})
            await world.touched(work, IDENTITIES, "300")
            world.now += 60
            await world.touched(work, IDENTITIES, "300")
            assert await unmarked()
        assert unused.deleted == 0 and await world.there(IDENTITIES, "300") is not None

    run(way, tmp_path, test)


# --- orphans


def pod(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "web"}]}}


@both_ways
def test_endpoints_without_their_pod_go_after_a_while(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        uid = (await world.api.create(resources.PODS, pod("here"), "default"))["metadata"]["uid"]
        await endpoint(world, "here", 300, owner=uid)
        await world.api.create(resources.PODS, pod("again"), "default")
        await endpoint(world, "again", 300, owner="of an earlier pod of that name")
        await endpoint(world, "gone", 300)
        lost = orphans.endpoints(world.api, grace=100.0, clock=world.clock)
        async with world.running(lost) as controllers:
            (work,) = controllers.works
            world.now += 99
            for name in ("here", "again", "gone"):
                await world.touched(work, CEP, name, "default")
            assert lost.deleted == 0
            world.now += 2
            for name in ("here", "again", "gone"):
                await world.touched(work, CEP, name, "default")
            await eventually(lambda: lost.deleted == 2, timeout=20, what="two deletions")
            left = [one["metadata"]["name"] for one in await world.api.list(CEP)]
            assert left == ["here"]

    run(way, tmp_path, test)


@both_ways
def test_what_the_stream_has_not_told_yet_is_asked_for(way: str, tmp_path: Path) -> None:
    """Its pod is there, and the stream of pods is behind: nothing is deleted."""

    async def test(world: World) -> None:
        await world.api.create(resources.PODS, pod("web"), "default")
        await endpoint(world, "web", 300)
        lost = orphans.endpoints(world.api, grace=100.0, clock=world.clock)
        head = await world.api.get(CEP, "web", "default")
        lost.take(CEP, Event("ADDED", "default", "web", msgspec.json.encode(head)))
        assert await lost.reconcile(("default", "web")) == 100.0
        world.now += 101
        assert await lost.reconcile(("default", "web")) == 100.0
        assert lost.deleted == 0 and await world.there(CEP, "web", "default") is not None

    run(way, tmp_path, test)


@both_ways
def test_nodes_of_cilium_without_their_node_go_unless_somebody_keeps_them(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.api.create(NODES, {"metadata": {"name": "n1"}})
        for name, more in (("n1", {}), ("n2", {}), ("n3", {"annotations": {orphans.KEPT: "true"}})):
            await world.api.create(resources.CILIUM_NODES, {"metadata": {"name": name, **more}, "spec": {}})
        lost = orphans.nodes(world.api, grace=100.0, clock=world.clock)
        async with world.running(lost) as controllers:
            (work,) = controllers.works
            world.now += 101
            for name in ("n1", "n2", "n3"):
                await world.touched(work, resources.CILIUM_NODES, name)
            left = [one["metadata"]["name"] for one in await world.api.list(resources.CILIUM_NODES)]
            assert left == ["n1", "n3"]

    run(way, tmp_path, test)


# --- pod CIDRs


@both_ways
def test_nodes_get_pod_cidrs_once_and_each_another(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.api.create(NODES, {"metadata": {"name": "own"}, "spec": {"podCIDRs": ["10.1.0.0/24"]}})
        names = [f"n{number}" for number in range(1, 8)]
        for name in names:
            await world.api.create(NODES, {"metadata": {"name": name}})
        cidrs = PodCidrs(world.api, [Pool("10.1.0.0/21", 24), Pool("fd00::/61", 64)])
        async with world.running(cidrs) as controllers:
            listed = await world.api.list(NODES)
            given = {one["metadata"]["name"]: one["spec"]["podCIDRs"] for one in listed}
            assert given.pop("own") == ["10.1.0.0/24"]
            assert all([ipaddress.ip_network(one).version for one in two] == [4, 6] for two in given.values())
            assert len({one for two in given.values() for one in two}) == 14
            # One more than there is room for: it is said, and helped as soon as another goes.
            await world.api.create(NODES, {"metadata": {"name": "late"}})
            await eventually(lambda: cidrs.waiting == {"late"}, timeout=20, what="the shortage")

            async def said() -> bool:
                events = await world.api.list(resources.EVENTS, "default")
                return [one["reason"] for one in events] == [EXHAUSTED]

            await eventually(said, timeout=20, what="the Event")
            await world.api.delete(NODES, "n3")

            async def helped() -> Any:
                return (await world.api.get(NODES, "late"))["spec"].get("podCIDRs")

            late = await eventually(helped, timeout=20, what="the CIDR that was given back")
            assert late[0] == given["n3"][0]
            await eventually(lambda: controllers.idle, timeout=20, what="rest")
        for name in names:
            assert world.changes.count(f"MODIFIED {name}") == 1

    run(way, tmp_path, test)


@both_ways
def test_two_nodes_with_one_cidr_are_told_of(way: str, tmp_path: Path) -> None:
    """Whoever gave it to the second: nobody can take it back, but somebody has to know."""

    async def test(world: World) -> None:
        for name, cidr in (("a", "10.1.0.0/24"), ("b", "10.1.1.0/24"), ("c", "10.1.1.128/25")):
            await world.api.create(NODES, {"metadata": {"name": name}, "spec": {"podCIDRs": [cidr]}})
        async with world.running(PodCidrs(world.api, [Pool("10.1.0.0/16", 24)])) as controllers:
            (work,) = controllers.works
            for name in ("a", "b", "c"):  # what changes nothing about it is not told again
                await world.touched(work, NODES, name)
            await world.api.create(NODES, {"metadata": {"name": "d"}})

            async def given() -> Any:
                return (await world.api.get(NODES, "d"))["spec"].get("podCIDRs")

            assert await eventually(given, timeout=20, what="a CIDR") == ["10.1.2.0/24"]
            await eventually(lambda: work.idle, timeout=20, what="rest")
            (event,) = await world.api.list(resources.EVENTS, "default")
            assert (event["reason"], event["involvedObject"]["name"], event["count"]) == (SHARED, "c", 1)
            assert "10.1.1.128/25 is also that of b" in event["message"]

    run(way, tmp_path, test)


class Faulty:
    """An API on which each write fails in turn before it works, or works and does not say so."""

    def __init__(self, api: Api, answers: Iterable[tuple[bool, Exception]]) -> None:
        self._api = api
        self._answers = list(answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    async def patch(self, *arguments: Any, **named: Any) -> Any:
        done, error = self._answers.pop(0) if self._answers else (True, None)
        found = await self._api.patch(*arguments, **named) if done else None
        if error is not None:
            raise error
        return found


@both_ways
def test_a_cidr_whose_answer_was_lost_is_given_to_nobody_else(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        for name in ("n1", "n2", "n3"):
            await world.api.create(NODES, {"metadata": {"name": name}})
        lost, refused = Unreachable("no answer"), ApiError(500, "InternalError", "no")
        api: Any = Faulty(world.api, [(True, lost), (False, refused), (False, lost), (True, lost)])
        async with world.running(PodCidrs(api, [Pool("10.1.0.0/23", 25)])) as controllers:
            await eventually(lambda: controllers.idle, timeout=20, what="rest")
            given = [one["spec"]["podCIDRs"][0] for one in await world.api.list(NODES)]
            assert len(set(given)) == 3
            (work,) = controllers.works
            assert work.failed >= 3
        assert all(world.changes.count(f"MODIFIED {name}") == 1 for name in ("n1", "n2", "n3"))

    run(way, tmp_path, test)
