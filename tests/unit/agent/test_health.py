"""What the agent says of the node is asked of the node: it changes when the thing does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from tests.unit.agent.conftest import Serve

from podwire.agent.server import features
from podwire.client.agent import AsyncAgentClient
from podwire.state.tables import EndpointFailureRow

# Fact → another value of it, and where health says it.
SAID: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "attach_mode": ("tc", lambda health: health["attach-mode"]),
    "socket_services": (False, lambda health: health["kube-proxy-replacement"]["features"]["socketLB"]),
    "pod_device": ("netkit", lambda health: health["datapath-mode"]),
    "segments": ((196608, 196608, 65536, 65536), lambda health: health["ipv6-big-tcp"]["enabled"]),
    "maps": ({"podwire_ipcache": 131072}, lambda health: health["bpf-maps"]["maps"]),
    "ring_bytes": (8 << 20, lambda health: health["nodeMonitor"]["npages"]),
    "flows": (4, lambda health: health["hubble"]["observer"]["current-flows"]),
    "flows_at_most": (8192, lambda health: health["hubble"]["observer"]["max-flows"]),
    "flows_seen": (6, lambda health: health["hubble"]["observer"]["seen-flows"]),
    "uptime": (62.0, lambda health: health["hubble"]["observer"]["uptime"]),
    "lost": (2, lambda health: health["nodeMonitor"]["lost"]),
    "watched": (("core/v1::Pod",), lambda health: health["kubernetes"]["k8s-api-versions"]),
    "unknown": (1, lambda health: health["nodeMonitor"]["unknown"]),
}


def test_health_changes_when_the_node_does(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        before = await client.get("/v1/healthz")
        known = node.known
        assert {*SAID, "route_mtu"} == {*known.__struct_fields__}, "each fact is said, and tried here"
        for fact, (value, said) in SAID.items():
            node.known = msgspec.structs.replace(known, **{fact: value})
            after = await client.get("/v1/healthz")
            assert said(after) != said(before), fact
        node.known = msgspec.structs.replace(known, route_mtu=1400)
        assert (await client.get("/v1/config"))["status"]["routeMTU"] == 1400

    serve(test)


def test_what_plugins_are_told_is_the_kernels_word(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        async def told(**facts: Any) -> dict[str, Any]:
            node.known = msgspec.structs.replace(node.known, **facts)
            answer: dict[str, Any] = (await client.get("/v1/config"))["status"]
            return answer

        before = await told()
        assert [before[name] for name in features.SIZES] == [65536] * 4
        after = await told(pod_device="netkit", segments=(1, 2, 3, 0))
        assert after["datapathMode"] == "netkit" != before["datapathMode"]
        assert [after.get(name) for name in features.SIZES] == [1, 2, 3, None], (
            "what is not known is left out"
        )
        assert before["ipam-mode"] == "kubernetes"
        local = next(row for row in node.tables.nodes if row.local)
        node.tables.nodes.put(msgspec.structs.replace(local, pod_cidrs=()))
        assert (await told())["ipam-mode"] == ""

    serve(test)


def test_programs_that_are_gone_forward_nothing(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        async def said() -> list[str]:
            health = await client.get("/v1/healthz")
            return [health["host-routing"]["mode"], health["routing"]["intra-host-routing-mode"]]

        assert await said() == ["BPF", "BPF"]
        node.known = msgspec.structs.replace(node.known, attach_mode="none")
        assert await said() == ["Legacy", "Legacy"]

    serve(test)


def test_kube_proxy_is_not_said_to_be_replaced_while_something_is_left_to_it(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        said = (await client.get("/v1/healthz"))["kube-proxy-replacement"]
        assert said["mode"] == "False" and not said["features"]["nodePort"]["enabled"]

    serve(test)


def test_whom_a_policy_allows_is_told_who_asks_and_not_who_attaches(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        shown = (await client.get("/v1/endpoint/5"))["status"]["policy"]["realized"]
        assert shown["allowed-ingress-identities"] == [1235] and shown["allowed-egress-identities"] == []
        (listed,) = await client.get("/v1/endpoint")
        assert listed["status"]["policy"]["realized"] == shown
        made = await client.attach(
            container_id="c7", netns="/n", namespace="prod", pod="new", interface="eth0"
        )
        assert "allowed-ingress-identities" not in made["status"]["policy"]["realized"]

    serve(test)


def test_metrics_are_told_to_the_last_digit(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        (drops, up) = await client.get("/v1/metrics")
        assert drops == {
            "name": "podwire_drop_count_total",
            "labels": {"reason": 'Policy "x"'},
            "value": 12345678,
        }
        assert up["value"] == 1
        assert 'podwire_drop_count_total{reason="Policy \\"x\\""} 12345678\n' in node.metrics().text()

    serve(test)


def test_controllers_are_what_was_tried_and_how_it_came_out(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        async def told() -> dict[str, Any]:
            controllers = (await client.get("/v1/healthz"))["controllers"]
            return {one["name"]: one["status"] for one in controllers}

        never = "0001-01-01T00:00:00.000Z"
        before = (await told())["write maps"]
        assert (before["success-count"], before["last-success-timestamp"]) == (0, never)
        node.attempts["write maps"].succeeded()
        for error in ("no room", "no memory"):
            node.attempts["write maps"].failed(error)
        assert (await told())["write maps"] == {
            "success-count": 1,
            "failure-count": 2,
            "consecutive-failure-count": 2,
            "last-failure-msg": "no memory",
            "last-failure-timestamp": "2023-11-14T22:13:20Z",
            "last-success-timestamp": "2023-11-14T22:13:20Z",
        }
        node.attempts["write maps"].succeeded()
        after = (await told())["write maps"]
        assert (after["success-count"], after["consecutive-failure-count"]) == (2, 0)
        assert (after["failure-count"], after["last-failure-msg"]) == (2, "no memory"), "of what was"
        assert (await told())["tell the API"]["success-count"] == 0

    serve(test)


def test_an_endpoint_says_of_itself_what_is_so(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        tables = node.tables
        row = msgspec.structs.replace(tables.endpoints.get(5), pod_interface="net1")
        tables.endpoints.put(row)
        status = (await client.get("/v1/endpoint/5"))["status"]
        assert status["external-identifiers"]["cni-attachment-id"] == "c1:net1"
        assert status["networking"]["container-interface-name"] == "net1"
        assert (await client.get("/v1/endpoint/5/healthz"))["policy"] == "OK"
        tables.endpoint_failures.put(EndpointFailureRow(5, ("peers",), "map podwire_policy is full"))
        health = await client.get("/v1/endpoint/5/healthz")
        assert health == (await client.get("/v1/endpoint/5"))["status"]["health"]
        assert (health["bpf"], health["policy"], health["overallHealth"]) == ("OK", "Warning", "Warning")
        (entry,) = await client.get("/v1/endpoint/5/log")
        assert entry["code"] == "Failed" and "map podwire_policy is full" in entry["message"]

    serve(test)


def test_a_frontend_is_of_the_type_that_its_address_is(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        row = next(iter(node.tables.frontends))
        node.tables.frontends.put(msgspec.structs.replace(row, address="192.0.2.1", rev_nat=2))
        types = [one["spec"]["flags"]["type"] for one in await client.get("/v1/service")]
        assert types == ["ClusterIP", "NodePort"]

    serve(test)
