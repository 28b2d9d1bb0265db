"""What this node tells the API while that refuses, forgets and falls silent, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.unit.sources.api import Api, Refusal, fault, missing, silence

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import ApiError
from podwire.kube import resources
from podwire.model.rule import Origin
from podwire.sources.report import Reporter
from podwire.state.tables import (
    ContainerPort,
    EndpointFailureRow,
    EndpointPolicyRow,
    EndpointRow,
    NodeRow,
    PodRow,
    PolicyFailureRow,
    ReportedEndpointRow,
    Tables,
)

QUICK = Backoff(0.001, 0.002)
NODE = NodeRow("n1", ("172.18.0.1",), ("10.0.1.0/24",), {"zone": "a"}, True, ("10.0.1.254",))
WEB = EndpointRow(
    1, "prod", "web", "u1", "c1", "/n", "lxc1", 1, "", "", "10.0.1.5", "fd00:1::5", ("k8s:app=web",), 300,
    (ContainerPort("http", 8080, 6),), "ready",
)  # fmt: skip
ENDPOINT = ("ciliumendpoints", "prod", "web")


class World:
    """One node's tables, the API, and the reporter between them."""

    def __init__(self) -> None:
        self.tables, self.api = Tables(), Api()
        self.tables.nodes.put(NODE)
        for table in self.tables:
            table.mark_all_ready()
        self.api.objects["nodes", "", "n1"] = {"metadata": {"name": "n1"}, "status": {}}
        api: Any = self.api
        self.reporter = Reporter(api, self.tables, node_name="n1", backoff=QUICK)

    def told(self, *key: str) -> dict[str, Any]:
        return self.api.objects[key]  # type: ignore[index]

    async def settled(self) -> None:
        """Nothing is due, and all changes have been read: what is put next is the next round's."""
        for _ in range(2):
            await asyncio.sleep(0)
            await eventually(lambda: not self.reporter.due, timeout=10, what="all to be told")


def run(work: Callable[[World], Any]) -> None:
    async def main() -> None:
        world = World()
        async with cancelling("tell", world.reporter.run()):
            await work(world)

    asyncio.run(main())


# --- an endpoint -----------------------------------------------------------------------------------


STEPS = [
    ("create", "ciliumendpoints"),
    ("patch", "ciliumendpoints"),
    ("create", "ciliumnodes"),
    ("get", "nodes"),
]


@pytest.mark.parametrize("refusal", [fault, silence, missing], ids=["500", "silence", "404"])
@pytest.mark.parametrize("step", STEPS, ids=" ".join)
def test_whatever_step_fails_in_the_end_all_is_told(step: tuple[str, str], refusal: Refusal) -> None:
    async def work(world: World) -> None:
        again = [] if refusal is missing else [refusal]  # that there is no Node is an answer
        world.api.refuse[step] = [refusal, *again]
        world.tables.endpoints.put(WEB)
        world.tables.pods.put(PodRow("prod", "web", "u1", "n1", (), {}, "", False, "Running", ()))
        await eventually(lambda: not world.api.refuse[step], timeout=10, what="the refusals")
        await world.settled()
        status = world.told(*ENDPOINT)["status"]
        assert (status["id"], status["identity"]["id"]) == (1, 300)
        assert status["networking"]["node"] == "172.18.0.1"
        assert status["named-ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        assert world.told("ciliumnodes", "", "n1")["spec"]["ipam"] == {"podCIDRs": ["10.0.1.0/24"]}
        assert world.reporter.error == ""

    run(work)


def test_an_endpoint_of_an_earlier_life_is_taken_over() -> None:
    async def work(world: World) -> None:
        world.api.objects[ENDPOINT] = {"metadata": {"name": "web", "labels": {"app": "old"}}}
        world.tables.endpoints.put(WEB)
        await eventually(lambda: "status" in world.told(*ENDPOINT), timeout=10, what="its status")
        metadata = world.told(*ENDPOINT)["metadata"]
        assert metadata["labels"] == {"app": "web"} and metadata["ownerReferences"][0]["uid"] == "u1"

    run(work)


def test_what_is_told_already_is_not_told_again() -> None:
    async def work(world: World) -> None:
        world.tables.endpoints.put(WEB)
        await eventually(lambda: "status" in world.api.objects.get(ENDPOINT, {}), timeout=10, what="it")
        await world.settled()
        before = len(world.api.calls)
        world.tables.endpoints.put(msgspec.structs.replace(WEB, host_mac="02:aa:00:00:00:01"))
        world.tables.nodes.put(msgspec.structs.replace(NODE, cluster="west", local=False))
        world.tables.endpoints.put(msgspec.structs.replace(WEB, id=2, pod="next"))
        await eventually(
            lambda: "status" in world.api.objects.get(("ciliumendpoints", "prod", "next"), {}),
            timeout=10,
            what="the next one",
        )
        assert {name for _, _, name in world.api.calls[before:]} == {"next"}

    run(work)


def test_policy_and_what_is_wrong_with_it_are_in_the_status() -> None:
    async def work(world: World) -> None:
        tables = world.tables
        tables.endpoints.put(WEB)
        tables.endpoint_policies.put(EndpointPolicyRow(1, 9, False, True, 1))

        def policy() -> Any:
            return world.api.objects.get(ENDPOINT, {}).get("status", {}).get("policy", {}).get("egress")

        await eventually(
            lambda: policy() == {"enforcing": True, "state": "enforcing"}, timeout=10, what="policy"
        )
        origin = Origin("CiliumNetworkPolicy", "prod", "big")
        tables.policy_failures.put(PolicyFailureRow(9, 3, "the map is full", (origin,)))
        tables.endpoint_failures.put(EndpointFailureRow(1, (), "a row cannot be replaced"))

        def log() -> str:
            told = world.told(*ENDPOINT)["status"]["log"]
            return str(told[0]["message"]) if told else ""

        wanted = "3 rows of policy 9 are not in the kernel: the map is full; a row cannot be replaced"
        await eventually(lambda: log() == wanted, timeout=10, what="what is wrong")
        (condition,) = world.told("nodes", "", "n1")["status"]["conditions"]
        assert condition["status"] == "False" and "prod/big" in condition["message"]
        tables.policy_failures.delete(9)
        tables.endpoint_failures.delete(1)
        await eventually(lambda: log() == "", timeout=10, what="the end of it")

    run(work)


def test_an_endpoint_goes_when_its_pod_does_and_only_if_it_is_this_nodes() -> None:
    async def work(world: World) -> None:
        tables, api = world.tables, world.api
        for name in ("web", "moved"):
            key = "ciliumendpoints", "prod", name
            tables.endpoints.put(msgspec.structs.replace(WEB, id=len(name), pod=name))
            await eventually(lambda key=key: "status" in api.objects.get(key, {}), timeout=10, what=name)
            api.objects[key]["metadata"]["namespace"] = "prod"
        await world.settled()
        pod = {"metadata": {"uid": "u1"}, "spec": {"nodeName": "n2"}}
        api.objects["pods", "prod", "moved"] = pod
        for name in ("web", "moved"):
            row = msgspec.structs.replace(WEB, id=len(name), pod=name, state="disconnecting")
            tables.endpoints.put(row)
            tables.endpoints.delete(row.id)
        await eventually(lambda: ENDPOINT not in api.objects, timeout=10, what="its end")
        await world.settled()
        assert ("ciliumendpoints", "prod", "moved") in api.objects
        assert api.deleted_only == [{"uid": "of-web", "resourceVersion": "7"}]

    run(work)


def test_a_deletion_that_fails_is_tried_again() -> None:
    async def work(world: World) -> None:
        tables, api = world.tables, world.api
        api.objects[ENDPOINT] = {
            "metadata": {"name": "web", "namespace": "prod", "uid": "x", "resourceVersion": "1"}
        }
        steps = (("get", "ciliumendpoints"), ("get", "pods"), ("delete", "ciliumendpoints"))
        for step in steps:
            api.refuse[step] = [fault]
        tables.reported_endpoints.put(ReportedEndpointRow("prod", "web"))
        await eventually(lambda: ENDPOINT not in api.objects, timeout=10, what="the leftover's end")
        assert not any(api.refuse.values())

    run(work)


def test_one_that_somebody_deleted_is_made_anew() -> None:
    async def work(world: World) -> None:
        tables, api = world.tables, world.api
        tables.endpoints.put(WEB)
        await eventually(lambda: "status" in api.objects.get(ENDPOINT, {}), timeout=10, what="it")
        tables.reported_endpoints.put(ReportedEndpointRow("prod", "web"))
        await world.settled()
        del api.objects[ENDPOINT]
        tables.reported_endpoints.delete(("prod", "web"))
        await eventually(lambda: "status" in api.objects.get(ENDPOINT, {}), timeout=10, what="it again")
        await world.settled()
        # And one whose end is noticed by the answer to a change, before it is told of.
        del api.objects[ENDPOINT]
        tables.endpoints.put(msgspec.structs.replace(WEB, identity=301))
        await eventually(
            lambda: api.objects.get(ENDPOINT, {}).get("status", {}).get("identity", {}).get("id") == 301,
            timeout=10,
            what="the changed one",
        )

    run(work)


# --- an event ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusals", [[], [fault], [silence, fault]], ids=["at once", "later", "much later"])
def test_a_pod_is_warned_whatever_is_in_the_way(refusals: list[Refusal]) -> None:
    async def work(world: World) -> None:
        world.api.refuse["create", "events"] = refusals
        world.tables.endpoints.put(WEB)
        world.tables.endpoint_failures.put(EndpointFailureRow(1, ("peers",), "the map is full"))
        await eventually(
            lambda: any(key[0] == "events" for key in world.api.objects), timeout=10, what="the event"
        )
        (event,) = [one for key, one in world.api.objects.items() if key[0] == "events"]
        assert event["reason"] == "PeersUnknown" and "the map is full" in event["message"]

    run(work)


def test_an_event_that_is_there_is_counted() -> None:
    async def work(world: World) -> None:
        api = world.api
        world.tables.endpoints.put(WEB)
        world.tables.endpoint_failures.put(EndpointFailureRow(1, ("peers",), "the map is full"))
        await eventually(lambda: any(key[0] == "events" for key in api.objects), timeout=10, what="it")
        await world.settled()
        (event,) = [one for key, one in api.objects.items() if key[0] == "events"]
        world.reporter._warned.clear()
        del event["count"]  # as other writers leave it out
        world.tables.endpoint_failures.delete(1)
        await asyncio.sleep(0)
        await world.settled()
        world.tables.endpoint_failures.put(EndpointFailureRow(1, ("peers",), "it is full again"))
        await eventually(lambda: event.get("count") == 2, timeout=10, what="the count")
        assert "it is full again" in event["message"]

    run(work)


@pytest.mark.parametrize("code", [403, 404])
def test_of_a_namespace_that_ends_nobody_is_warned(code: int) -> None:
    async def work(world: World) -> None:
        world.api.refuse["create", "events"] = [lambda: ApiError(code, "Gone", "the namespace ends")]
        world.tables.endpoints.put(WEB)
        world.tables.endpoint_failures.put(EndpointFailureRow(1, ("peers",), "the map is full"))
        await eventually(lambda: not world.api.refuse["create", "events"], timeout=10, what="the answer")
        await world.settled()
        assert not any(key[0] == "events" for key in world.api.objects) and world.reporter.error == ""

    run(work)


def test_what_is_over_before_it_could_be_told_is_no_event() -> None:
    async def work(world: World) -> None:
        world.tables.endpoints.put(WEB)
        await world.settled()
        await world.reporter._write_event(1)
        await world.reporter._write_event(2)
        assert not any(resource == "events" for _, resource, _ in world.api.calls)

    run(work)


# --- the node ----------------------------------------------------------------------------------------


def test_the_node_is_told_as_it_changes_and_goes() -> None:
    async def work(world: World) -> None:
        tables, api = world.tables, world.api
        key = "ciliumnodes", "", "n1"
        tables.endpoints.put(WEB)
        await eventually(lambda: key in api.objects and ENDPOINT in api.objects, timeout=10, what="both")
        await world.settled()
        tables.nodes.put(msgspec.structs.replace(NODE, addresses=("172.18.0.9",)))
        await eventually(
            lambda: api.objects[key]["spec"]["addresses"][0]["ip"] == "172.18.0.9", timeout=10, what="move"
        )
        await eventually(
            lambda: world.told(*ENDPOINT)["status"]["networking"]["node"] == "172.18.0.9",
            timeout=10,
            what="its endpoint's",
        )
        tables.nodes.delete(("", "n1"))
        await eventually(lambda: key not in api.objects, timeout=10, what="its end")
        await eventually(
            lambda: world.told(*ENDPOINT)["status"]["networking"]["node"] == "", timeout=10, what="nowhere"
        )

    run(work)


def test_a_node_that_said_otherwise_in_an_earlier_life_says_that_all_is_well() -> None:
    async def work(world: World) -> None:
        earlier = {"type": "podwire.io/PoliciesEnforced", "status": "False", "reason": "NotWritten"}
        world.api.objects["nodes", "", "n1"]["status"] = {"conditions": [earlier]}

        def now() -> Any:
            return world.told("nodes", "", "n1")["status"]["conditions"][0]

        await eventually(lambda: now()["status"] == "True", timeout=10, what="the condition")
        assert "lastTransitionTime" in now()
        await world.settled()
        patched = [one for one in world.api.calls if one[:2] == ("patch", resources.NODES.plural)]
        assert len(patched) == 1

    run(work)
