"""Sources and write-backs against a real API server: what is told, and what happens while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwire.apiserver import ApiServer, ServerConfig
from podwire.base.aio import Backoff, Supervised, eventually
from podwire.base.errors import ApiError, InvalidObject
from podwire.kube import Client, resources
from podwire.model.rule import Origin, Rule
from podwire.operator.controllers import Controllers
from podwire.operator.policies import PolicyConditions
from podwire.sources.report import Reporter
from podwire.sources.watch import Sources
from podwire.state.tables import (
    EndpointFailureRow,
    EndpointPolicyRow,
    EndpointRow,
    NodeRow,
    PolicyFailureRow,
    Tables,
)

NODE = NodeRow("n1", ("172.20.0.1",), ("10.0.1.0/24",), {}, True, ("10.0.1.254",))
SPEC: dict[str, Any] = {"endpointSelector": {}, "ingress": [{}]}
QUICK = Backoff(0.01, 0.05)


def parse(item: dict[str, Any]) -> tuple[Rule, ...]:
    if "description" in item["spec"]:  # something the API's schema lets pass
        raise InvalidObject("spec.description", "is not supported")
    return ()


class World:
    """A node's sources and reporter, and the API they talk to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tables = Tables()
        self.tables.nodes.put(NODE)  # an agent knows its node before all else
        self.tables.identities.mark_all_ready()  # the allocator's, which is not here
        self.server = ApiServer(ServerConfig(directory=directory))
        self.port = 0

    async def start(self) -> None:
        self.server = ApiServer(ServerConfig(directory=self.directory, port=self.port))
        await self.server.start()
        self.port = int(self.server.url.rpartition(":")[2])

    async def endpoint(self, name: str) -> dict[str, Any] | None:
        return await self.found(resources.CILIUM_ENDPOINTS, name, "default")

    async def found(self, resource: Any, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        try:
            return await self.client.get(resource, name, namespace)
        except ApiError as error:
            assert error.code == 404
            return None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        await self.start()
        kubeconfig = self.directory / "kubeconfig"
        kubeconfig.write_bytes(self.server.kubeconfig("agent", ("system:masters",)))
        try:
            async with Client.from_kubeconfig(kubeconfig) as self.client, Supervised("world") as group:
                sources = Sources(self.tables, node_name="n1", parse=parse, backoff=QUICK)
                self.reporter = Reporter(self.client, self.tables, node_name="n1", backoff=QUICK)
                for family in sources.families:
                    group.start(f"watch {family.resource.plural}", sources.follow(self.client, family))
                group.start("report", self.reporter.run())
                self.conditions = PolicyConditions(self.client, parse)
                group.start("operate", Controllers(self.client, [self.conditions], backoff=QUICK).run())
                await eventually(lambda: not sources.waiting(), timeout=10, what="the first lists")
                yield self
        finally:
            await self.server.stop()  # after its clients have left: it would wait for them

    async def until(self, what: str, condition: Callable[[], Any]) -> Any:
        return await eventually(condition, timeout=10, what=what)


def run(directory: Path, test: Callable[[World], Any]) -> None:
    async def main() -> None:
        async with World(directory).running() as world:
            await test(world)

    asyncio.run(main())


def endpoint(number: int = 5, **changes: Any) -> EndpointRow:
    row = EndpointRow(
        id=number, namespace="default", pod="web", uid="", container_id="c", netns="", interface="lxc5",
        ifindex=5, mac="", host_mac="", ipv4="10.0.1.5", ipv6="", labels=("k8s:app=web",), identity=0,
        ports=(), state="waiting-for-identity",
    )  # fmt: skip
    return msgspec.structs.replace(row, **changes)


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


async def endpoints_come_change_and_go(world: World) -> None:
    tables = world.tables
    tables.endpoints.put(endpoint())
    tables.endpoints.put(endpoint(9, pod="after", state="ready"))
    await world.until("what comes after it", lambda: world.endpoint("after"))
    assert await world.endpoint("web") is None, "it is being attached"
    tables.endpoints.delete(9)
    tables.endpoint_policies.put(EndpointPolicyRow(5, 9, True, False, 1))
    tables.endpoints.put(endpoint(identity=1234, state="ready"))

    async def is_ready() -> Any:
        shape = await world.endpoint("web")
        return shape if shape and shape["status"]["state"] == "ready" else None

    found = await world.until("the change", is_ready)
    assert found["status"]["identity"] == {"id": 1234, "labels": ["k8s:app=web"]}
    assert found["status"]["networking"] == {"addressing": [{"ipv4": "10.0.1.5"}], "node": "172.20.0.1"}
    assert found["status"]["policy"]["ingress"]["enforcing"] is True
    tables.endpoints.put(endpoint(6, uid="u2", identity=1234, state="ready"))  # the next pod of that name
    tables.endpoints.delete(5)

    async def is_owned() -> Any:
        shape = await world.endpoint("web")
        owners = (shape or {}).get("metadata", {}).get("ownerReferences") or [{}]
        return shape and shape["status"]["id"] == 6 and owners[0].get("uid") == "u2"

    await world.until("the next pod's endpoint", is_owned)
    tables.endpoints.delete(6)

    async def is_gone() -> bool:
        return await world.endpoint("web") is None

    await world.until("its end", is_gone)


async def the_node_tells_of_itself(world: World) -> None:
    found = await world.until("the node", lambda: world.found(resources.CILIUM_NODES, "n1"))
    assert {"type": "CiliumInternalIP", "ip": "10.0.1.254"} in found["spec"]["addresses"]


async def policies_are_told_whether_they_are_valid(world: World) -> None:
    for name, spec, status, message in (
        ("good", SPEC, "True", "Policy validation succeeded"),
        ("bad", SPEC | {"description": ""}, "False", "spec.description: is not supported"),
    ):
        await world.client.create(resources.CILIUM_NETWORK_POLICIES, policy(name, spec))

        async def told(name: str = name) -> Any:
            found = await world.client.get(resources.CILIUM_NETWORK_POLICIES, name, "default")
            return found.get("status", {}).get("conditions")

        (condition,) = await world.until("the condition", told)
        assert (condition["type"], condition["status"], condition["message"]) == ("Valid", status, message)
        row = world.tables.policies.get(("CiliumNetworkPolicy", "default", name))
        assert row is not None and row.error == (message if status == "False" else "")


async def a_restricted_pod_is_warned_once(world: World) -> None:
    """By an event of the pod's, when it begins; not at each change, and not again a moment later."""
    tables = world.tables
    tables.nodes.put(NODE)
    tables.endpoints.put(endpoint(uid="u1", identity=1234, state="ready"))

    async def events() -> list[Any]:
        return await world.client.list(resources.EVENTS, "default")

    async def told() -> None:
        await world.until("the report", lambda: not world.reporter.due)

    tables.endpoint_failures.put(EndpointFailureRow(5, ("addresses",), "map podwire_ipcache is full"))
    (event,) = await world.until("the event", events)
    about = event["involvedObject"]
    assert (about["kind"], about["name"], about["uid"]) == ("Pod", "web", "u1")
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "PeersUnknown", 1)
    assert "map podwire_ipcache is full" in event["message"] and "map-growth-max" in event["message"]
    tables.endpoint_failures.put(EndpointFailureRow(5, ("peers", "addresses"), "another map is full"))
    tables.endpoints.put(endpoint(uid="u1", identity=1235, state="ready"))

    async def has_changed() -> bool:
        shape = await world.endpoint("web")
        return bool(shape and shape["status"].get("identity", {}).get("id") == 1235)

    await world.until("what came after it", has_changed)
    tables.endpoint_failures.delete(5)
    tables.endpoints.put(endpoint(uid="u1", identity=1236, state="ready"))
    tables.endpoint_failures.put(EndpointFailureRow(5, ("addresses",), "it is full again"))
    tables.endpoints.put(endpoint(6, pod="next", uid="u2", identity=1237, state="ready"))
    await world.until("the next endpoint", lambda: world.endpoint("next"))
    await told()
    assert await events() == [event]
    # Another agent of the node says the same: it is counted.
    other = Reporter(world.client, tables, node_name="n1", backoff=QUICK)
    async with Supervised("other") as group:
        group.start("report", other.run())

        async def is_counted() -> bool:
            return [one["count"] for one in await events()] == [2]

        await world.until("the count", is_counted)


async def what_earlier_versions_wrote_into_policies_goes(world: World) -> None:
    """A condition a node, also of nodes that are gone; what others wrote there stays."""
    kind = resources.CILIUM_NETWORK_POLICIES
    await world.client.create(kind, policy("old", SPEC))
    moment = "2026-01-01T00:00:00Z"
    others = {
        "type": "example.com/Seen",
        "status": "True",
        "lastTransitionTime": moment,
        "reason": "Is",
        "message": "",
    }
    gone = [others | {"type": f"podwire.io/Enforced.n{number}"} for number in range(3)]
    wrong = others | {"type": "Valid", "status": "False"}
    status = {"status": {"conditions": [others, *gone, wrong]}}
    await world.client.patch(kind, "old", status, "default", subresource="status")

    async def is_right() -> Any:
        found = await world.client.get(kind, "old", "default")
        types = [(one["type"], one["status"]) for one in found["status"]["conditions"]]
        return found if types == [("example.com/Seen", "True"), ("Valid", "True")] else None

    found = await world.until("the conditions", is_right)
    await world.until("the end of the work", lambda: not world.conditions.due)
    now = await world.client.get(kind, "old", "default")
    assert now["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]  # written once


async def a_node_tells_what_is_not_in_force_on_it(world: World) -> None:
    ours = {"type": "Ready", "status": "True", "reason": "", "message": ""}
    spec = {"podCIDRs": list(NODE.pod_cidrs)}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": spec}
    await world.client.create(resources.NODES, body)
    addresses = [{"type": "InternalIP", "address": one} for one in NODE.addresses]
    status = {"status": {"conditions": [ours], "addresses": addresses}}
    await world.client.patch(resources.NODES, "n1", status, subresource="status")

    async def told(status: str) -> Any:
        found = (await world.client.get(resources.NODES, "n1"))["status"]["conditions"]
        assert next(one for one in found if one["type"] == "Ready") == ours  # others' stay
        mine = next((one for one in found if one["type"] == "podwire.io/PoliciesEnforced"), {})
        return mine if mine.get("status") == status else None

    world.tables.policy_failures.mark_all_ready()
    await world.until("nothing to tell", lambda: "enforced" not in world.reporter.due)
    assert await told("True") is None  # of a node on which all is in force
    origins = (Origin("CiliumNetworkPolicy", "prod", "big"), Origin("NetworkPolicy", "prod", "np"))
    world.tables.policy_failures.put(PolicyFailureRow(9, 3, "map podwire_policy is full", origins))
    mine = await world.until("the condition", lambda: told("False"))
    for origin in origins:
        assert (
            f"{origin.kind} {origin}: 3 rows of policy 9 are not in the kernel: map podwire_policy is full"
            in mine["message"]
        )
    world.tables.policy_failures.delete(9)
    await world.until("the end", lambda: told("True"))
    world.tables.policy_failures.put(PolicyFailureRow(9, 3, "map podwire_policy is full", origins))
    mine = await world.until("the condition again", lambda: told("False"))
    # An agent that starts anew knows of no failure yet, which is not that there is none.
    tables = Tables()
    tables.endpoints.put(endpoint(8, pod="early", state="ready"))
    other = Reporter(world.client, tables, node_name="n1", backoff=QUICK)
    async with Supervised("other") as group:
        group.start("report", other.run())
        await world.until("an endpoint of it", lambda: world.endpoint("early"))
        await world.until("nothing to tell", lambda: not other.due)
        assert await told("False") == mine
        tables.policy_failures.mark_all_ready()
        await world.until("the end by the one that knows now", lambda: told("True"))
    world.tables.policy_failures.delete(9)
    await world.client.delete(resources.CILIUM_ENDPOINTS, "early", "default")


async def an_endpoint_that_somebody_deletes_is_made_anew(world: World) -> None:
    world.tables.endpoints.put(endpoint(7, pod="kept", identity=77, state="ready"))
    made = await world.until("the endpoint", lambda: world.endpoint("kept"))
    await world.until("the telling", lambda: ("default", "kept") in world.tables.reported_endpoints)
    await world.client.delete(resources.CILIUM_ENDPOINTS, "kept", "default")

    async def is_back() -> Any:
        shape = await world.endpoint("kept")
        again = shape is not None and shape["metadata"]["uid"] != made["metadata"]["uid"]
        return again and shape and shape.get("status", {}).get("identity", {}).get("id") == 77

    await world.until("the endpoint's return", is_back)
    world.tables.endpoints.delete(7)


async def leftovers_of_an_earlier_life_are_deleted(world: World) -> None:
    for name, node in (("stale", "172.20.0.1"), ("theirs", "172.20.0.2")):
        body = {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
                "metadata": {"name": name, "namespace": "default"}}  # fmt: skip
        await world.client.create(resources.CILIUM_ENDPOINTS, body)
        status = {"status": {"networking": {"node": node, "addressing": [{"ipv4": "10.0.2.9"}]}}}
        await world.client.patch(resources.CILIUM_ENDPOINTS, name, status, "default", subresource="status")
    world.tables.endpoints.mark_all_ready()

    async def is_gone() -> bool:
        return await world.endpoint("stale") is None

    await world.until("the leftover's end", is_gone)
    assert await world.endpoint("theirs") is not None


async def an_endpoint_of_another_nodes_pod_is_left_alone(world: World) -> None:
    """That names this node's address, which was handed on: this node has not heard of it yet. One whose
    owner is no more goes, though a pod of its name runs elsewhere."""
    client, uids = world.client, {}
    for name in ("moved", "old"):
        spec = {"nodeName": "n2", "containers": [{"name": "c", "image": "i"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        uids[name] = (await client.create(resources.PODS, body, "default"))["metadata"]["uid"]
    for name, owner in (("moved", uids["moved"]), ("old", "of-the-pod-before")):
        owners = [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": owner}]
        metadata = {"name": name, "namespace": "default", "ownerReferences": owners}
        status = {"networking": {"node": "172.20.0.1", "addressing": [{"ipv4": "10.0.2.9"}]}}
        body = {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": metadata}
        await client.create(resources.CILIUM_ENDPOINTS, body)
        await client.patch(
            resources.CILIUM_ENDPOINTS, name, {"status": status}, "default", subresource="status"
        )

    async def is_gone() -> bool:
        return await world.endpoint("old") is None

    await world.until("the end of the one that is nobody's", is_gone)
    await world.until("nothing to tell", lambda: not world.reporter.due)
    assert ("default", "moved") in world.tables.reported_endpoints
    assert await world.endpoint("moved") is not None
    for only in ({"uid": "another"}, {"resourceVersion": "1"}):
        with pytest.raises(ApiError) as refused:
            await client.delete(resources.CILIUM_ENDPOINTS, "moved", "default", only=only)
        assert refused.value.code == 409
    for name in uids:
        await client.delete(resources.PODS, name, "default", grace=0)


def test_what_a_node_tells(tmp_path: Path) -> None:
    """One API for all: starting it costs more than any of them."""

    async def test(world: World) -> None:
        await leftovers_of_an_earlier_life_are_deleted(world)
        await an_endpoint_of_another_nodes_pod_is_left_alone(world)
        await the_node_tells_of_itself(world)
        await endpoints_come_change_and_go(world)
        await an_endpoint_that_somebody_deletes_is_made_anew(world)
        await a_node_tells_what_is_not_in_force_on_it(world)
        await policies_are_told_whether_they_are_valid(world)
        await a_restricted_pod_is_warned_once(world)
        await what_earlier_versions_wrote_into_policies_goes(world)

    run(tmp_path, test)


def test_the_api_away_changes_nothing_and_is_caught_up_with(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        tables = world.tables
        await world.client.create(resources.CILIUM_NETWORK_POLICIES, policy("p", SPEC))
        await world.until("the policy", lambda: len(tables.policies) == 1)
        await world.until("the node", lambda: not world.reporter.due)
        await world.server.stop()
        tables.endpoints.put(endpoint(identity=77, state="ready"))
        await world.until("the failure", lambda: "does not answer" in world.reporter.error)
        assert "does not answer" in world.client.away
        assert len(tables.policies) == 1 and tables.policies.ready and len(tables.namespaces) > 0
        await world.start()
        await world.until("the catching up", lambda: not world.reporter.due)
        found = await world.endpoint("web")
        assert found is not None and found["status"]["identity"]["id"] == 77 and not world.client.away
        await world.client.delete(resources.CILIUM_NETWORK_POLICIES, "p", "default")
        await world.until("the deletion", lambda: len(tables.policies) == 0)

    run(tmp_path, test)
