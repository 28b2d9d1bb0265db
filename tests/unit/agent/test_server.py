"""The local socket: Cilium's paths and podwire's own, for root alone, never 5xx for what a client sent."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from tests.unit.agent.conftest import Serve

from podwire.agent import server
from podwire.base.aio import eventually
from podwire.base.errors import Conflict, InvalidObject, NotFound, NotPermitted, StorageError
from podwire.client.agent import AgentClient, AsyncAgentClient
from podwire.state.tables import NodeRow, ServiceRow

# Each path, and of its answer what only what was asked for has.
ANSWERS = {
    "/v1/healthz": '"k8s-api-versions": ["core/v1::Pod", "core/v1::Node"]',
    "/v1/config": '"policy-enforcement": "default"',
    "/v1/debuginfo": '"kernel-version": ',
    "/v1/endpoint": '[{"id": 5, ',
    "/v1/endpoint/5": '{"id": 5, ',
    "/v1/endpoint/5/healthz": '"overallHealth": "OK"',
    "/v1/endpoint/5/log": '"state": "ready"',
    "/v1/endpoint/5/labels": '"security-relevant": ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=prod"]',
    "/v1/endpoint/5/config": '"id": 5',
    "/v1/identity": '{"id": 1, "labels": ["reserved:host"]',
    "/v1/identity/1234": '{"id": 1234, "labels": ["k8s:app=web"',
    "/v1/ip": '"cidr": "10.0.1.1/32", "identity": 1234',
    "/v1/service": '[{"spec": {"id": 1, "frontend-address": {"ip": "10.96.0.1", "port": 80',
    "/v1/service/1": '{"spec": {"id": 1, "frontend-address": {"ip": "10.96.0.1", "port": 80',
    "/v1/cluster/nodes": '"self": "default/n1"',
    "/v1/policy": '\\"name\\":\\"allow-web\\"',
    "/v1/policy/selectors": '"selector": "k8s:app=web", "identities": [1234]',
    "/v1/map": '"path": "/sys/fs/bpf/podwire/policy"',
    "/v1/map/ipcache": '"key": "10.0.1.1/32"',
    "/v1/metrics": '"name": "podwire_drop_count_total"',
    "/podwire/v1/tables": '"name": "nodes", "rows": 2, "ready": true',
    "/podwire/v1/bpf/lb": '"frontend": "10.96.0.1:80/TCP", "service": "prod/web"',
    "/podwire/v1/metrics": "# TYPE podwire_drop_count_total counter",
    "/podwire/v1/explain/11111111-2222-3333-4444-555555555555": '"verdict": "DROPPED"',
}
GETS = list(ANSWERS)


def test_every_path_answers(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        for path in GETS:
            assert ANSWERS[path] in json.dumps(await client.get(path)), path
        for table in node.tables:
            assert len(await client.get(f"/podwire/v1/tables/{table.name}")) == len(table)

    serve(test)


def test_a_table_that_is_not_ready_tells_whom_it_waits_for(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        identities = node.tables.identities
        identities.declare(identities.writers)  # as when the agent starts
        identities.mark_ready("identity.allocate")
        told = {one["name"]: one for one in await client.get("/podwire/v1/tables")}
        assert (told["identities"]["ready"], told["identities"]["waits_for"]) == (
            False,
            ["identity.prefixes"],
        )
        assert (told["nodes"]["ready"], told["nodes"]["waits_for"]) == (True, [])

    serve(test)


def test_health_has_all_that_clients_read(serve: Serve) -> None:
    """Members that Cilium's clients read without asking whether they are there."""

    async def test(client: AsyncAgentClient, node: Any) -> None:
        health = await client.get("/v1/healthz")
        assert health["cilium"]["state"] == "Ok"
        assert health["kube-proxy-replacement"]["features"]["nodePort"]["enabled"] is False
        for member in ("masquerading", "bandwidth-manager", "host-routing", "encryption", "clock-source"):
            assert isinstance(health[member], dict), member
        assert health["ipam"]["allocations"] == {"10.0.1.1": "prod/web-1"}
        assert health["podwire"]["services-not-served"][0]["not-served"] == ["NodePort 30080"]
        assert health["podwire"]["invalid-policies"][0]["name"] == "broken"
        node.components["datapath"] = ("Failure", "map full")
        health = await client.get("/v1/healthz")
        assert health["cilium"] == {"state": "Failure", "msg": "datapath: map full"}
        node.attempts["write maps"].failed("no room")
        health = await client.get("/v1/healthz")
        failing = [one for one in health["controllers"] if one["status"]["consecutive-failure-count"]]
        assert [one["name"] for one in failing] == ["write maps"]

    serve(test)


def test_a_cluster_of_a_mesh_tells_its_numbers_and_whose_the_nodes_are(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        assert (await client.get("/v1/healthz"))["identity-range"] == {
            "min-identity": 256,
            "max-identity": 65535,
        }
        node.config = msgspec.structs.replace(node.config, cluster_name="east", cluster_id=1)
        node.tables.nodes.put(NodeRow("n2", ("172.21.0.2",), (), {}, False, cluster="west"))
        theirs = ServiceRow("prod", "web", "NodePort", (), (), {}, {}, 0, ("NodePort 1",), "west")
        node.tables.services.put(theirs)
        health = await client.get("/v1/healthz")
        assert health["identity-range"] == {"min-identity": 1 << 16, "max-identity": (2 << 16) - 1}
        names = {one["name"]: one["source"] for one in health["cluster"]["nodes"]}
        assert len(health["podwire"]["services-not-served"]) == 1
        assert names == {"east/n1": "local", "east/n2": "custom-resource", "west/n2": "clustermesh"}

    serve(test)


def test_endpoint_in_ciliums_shape(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        shape = await client.get("/v1/endpoint/5")
        status = shape["status"]
        assert (shape["id"], status["state"], status["identity"]["id"]) == (5, "ready", 1234)
        assert status["policy"]["realized"]["policy-enabled"] == "ingress"
        assert status["policy"]["realized"]["policy-revision"] == 3
        assert status["policy"]["realized"]["allowed-ingress-identities"] == [1235]
        assert status["networking"]["addressing"] == [{"ipv4": "10.0.1.1", "ipv6": "fd00:1::1"}]
        for name in (
            "cilium-local:5",
            "container-id:c1",
            "cni-attachment-id:c1:eth0",
            "pod-name:prod:web-1",
            "cep-name:prod%2Fweb-1",
            "ipv4:10.0.1.1",
            "ipv6:fd00:1::1",
        ):
            assert (await client.get(f"/v1/endpoint/{name}"))["id"] == 5, name

    serve(test)


def test_a_pod_comes_and_goes(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        given = await client.allocate("prod/new")
        assert (given.ipv4, given.gateway4, given.gateway6) == ("10.0.1.2", "10.0.1.254", "fd00:1::ffff")
        assert given.expires == "uuid" and node.owners["10.0.1.2"] == "prod/new"
        shape = await client.attach(
            container_id="c7",
            netns="/proc/1/ns/net",
            namespace="prod",
            pod="new",
            ipv4=given.ipv4,
            ipv6=given.ipv6,
        )
        assert shape["status"]["external-identifiers"]["pod-name"] == "prod/new"
        await client.detach("c7")
        with pytest.raises(NotFound):
            await client.detach("c7")
        await client.release(given.ipv4)
        with pytest.raises(NotFound):
            await client.release(given.ipv4)

    serve(test)


def test_refusals_name_what_is_wrong(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        good = {"container_id": "c7", "netns": "/n", "namespace": "prod", "pod": "taken"}
        with pytest.raises(Conflict) as conflict:
            await client.attach(**good)
        assert conflict.value.hint == "detach it first"
        with pytest.raises(InvalidObject, match=r"addressing\.ipv4"):
            await client.attach(**good, ipv4="10.0.0.256")
        with pytest.raises(InvalidObject, match=r"addressing\.ipv6"):
            await client.attach(**good, ipv6="::ffff:10.0.0.5")
        with pytest.raises(InvalidObject, match="container-interface-name"):
            await client.attach(**good, interface="../eth0")
        made = {
            "container-id": "c7",
            "container-netns-path": "/n",
            "k8s-namespace": "prod",
            "k8s-pod-name": "web",
            "interface-name": "lxc1",
            "interface-index": 7,
            "mac": "02:00:00:00:00:01",
            "host-mac": "02:00:00:00:00:02",
        }
        for name, wrong in (
            ("host-mac", "none"),
            ("mac", ""),
            ("interface-name", ".."),
            ("interface-index", 0),
        ):
            with pytest.raises(InvalidObject, match=name):
                await client.call("PUT", "/v1/endpoint/1", {}, made | {name: wrong})
        attached = await client.attach(**(good | {"pod": "web"}), ipv6="FD00:0::5")
        assert attached["status"]["networking"]["addressing"][0]["ipv6"] == "fd00::5"
        with pytest.raises(InvalidObject, match="k8s-pod-name"):
            await client.attach(**(good | {"pod": ""}))
        with pytest.raises(NotFound, match="endpoint 999"):
            await client.get("/v1/endpoint/999")
        with pytest.raises(InvalidObject, match="family"):
            await client.allocate("prod/x", "ipv5")
        with pytest.raises(NotFound, match="no table"):
            await client.get("/podwire/v1/tables/__init__")

    serve(test)


def test_events_stream_until_the_client_leaves(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        def read() -> list[Any]:
            stream = AgentClient(client.path).stream("/podwire/v1/monitor")
            first = [next(stream), next(stream)]
            stream.close()  # type: ignore[attr-defined]
            return first

        node.events.offer({"number": 1})
        node.events.offer({"number": 2})
        assert await asyncio.to_thread(read) == [{"number": 1}, {"number": 2}]

        # The next events meet a closed connection, and the subscription ends.
        def gone() -> bool:
            node.events.offer({"number": 3})
            return node.subscribers == 0

        await eventually(gone, timeout=10, what="the end of the subscription")

    serve(test)


def test_the_socket_is_roots_alone_and_goes_with_the_agent(memory: ModuleType, tmp_path: Path) -> None:
    async def main() -> None:
        node = memory.MemoryNode(str(tmp_path / "run"))
        path = node.config.socket
        async with server.listening(node, path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.is_socket()
            assert [one.name for one in path.parent.iterdir()] == [path.name]
            with pytest.raises(Conflict, match="another agent"):
                async with server.listening(node, path):
                    pass
        assert not path.exists()

    asyncio.run(main())


def test_a_socket_left_by_a_killed_agent_is_taken_over(memory: ModuleType, tmp_path: Path) -> None:
    node = memory.MemoryNode(str(tmp_path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(node.config.socket))

    async def main() -> None:
        async with server.listening(node, node.config.socket):
            await AsyncAgentClient(node.config.socket).get("/v1/config")

    asyncio.run(main())


def test_a_place_that_cannot_be_made_is_named(memory: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot listen on"):
        server.bind(tmp_path / "file" / "podwire.sock")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused_even_with_the_socket_open(memory: ModuleType, tmp_path: Path) -> None:
    """By the file's mode, and by the kernel's word on who connected."""

    def ask_as_nobody(path: Path) -> str:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                AgentClient(path).get("/v1/healthz")
                answer = "answered"
            except NotPermitted as error:
                answer = str(error)
            except BaseException as error:  # noqa: BLE001 - a forked child may not return into pytest
                answer = repr(error)
            os.write(write, answer.encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as pipe:
            return pipe.read()

    async def main() -> None:
        node = memory.MemoryNode(str(tmp_path))
        path = node.config.socket
        async with server.listening(node, path):
            for directory in (tmp_path, *tmp_path.parents):
                if (
                    directory.stat().st_uid == os.geteuid()
                    and directory.is_relative_to("/tmp")
                    and directory != Path("/tmp")
                ):
                    directory.chmod(0o755)
            assert "only root may talk" in await asyncio.to_thread(ask_as_nobody, path)
            path.chmod(0o666)
            assert (
                await asyncio.to_thread(ask_as_nobody, path)
                == "user 65534 may not talk to the agent: only root may"
            )

    asyncio.run(main())
