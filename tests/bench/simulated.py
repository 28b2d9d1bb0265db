"""An API of a cluster that nobody runs here: 5,000 nodes, 100,000 pods, as bytes.

It serves what an agent asks for: lists in pages, made when they are asked for; watches that say
nothing; and it agrees to what is written. One process, no store: an agent's start is measured, not this.
Run by start.py: ``python simulated.py PODS`` prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

NODES, LOCAL_PODS, NAMESPACES, IDENTITIES = 5000, 20, 200, 5000
SERVICES, ENDPOINTS_EACH, POLICIES = 1000, 10, 100
NODE = "node-0"  # of the agent
Object = dict[str, Any]

MANAGED = [
    {
        "manager": "podwire-agent/node",
        "operation": "Update",
        "apiVersion": "cilium.io/v2",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            f"f:{part}": {f"f:{name}": {} for name in ("a", "b", "c", "d", "e", "f")}
            for part in ("metadata", "status", "networking", "external-identifiers", "named-ports")
        },
    }
]


def main() -> None:
    asyncio.run(Simulated(int(sys.argv[1])).serve())


def node_address(number: int) -> str:
    return f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}"


def pod_address(number: int) -> str:
    """Of the `number`th remote pod: 20 a node, from the node's /24; node 0 is the agent's."""
    node, place = 1 + number // 20, 1 + number % 20
    return f"10.{node // 256}.{node % 256}.{place}"


def namespace_of(identity: int) -> str:
    return f"team-{identity % NAMESPACES}"


def identity_labels(identity: int) -> dict[str, str]:
    return {
        "k8s:app": f"app-{identity}",
        "k8s:tier": f"tier-{identity % 5}",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": namespace_of(identity),
        "k8s:io.cilium.k8s.policy.cluster": "default",
        "k8s:io.cilium.k8s.policy.serviceaccount": "default",
        "k8s:io.kubernetes.pod.namespace": namespace_of(identity),
    }


def meta(name: str, namespace: str = "", **more: Any) -> Object:
    place = {"namespace": namespace} if namespace else {}
    return {
        "name": name,
        **place,
        "uid": f"{abs(hash((name, namespace))):032x}",
        "resourceVersion": "1000",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": MANAGED,
        **more,
    }


def endpoint(number: int) -> Object:
    identity = number % IDENTITIES
    name = f"app-{identity}-5d8f9c7b6d-{number:05x}"
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": f"{number:032x}"}
    labels = {"app": f"app-{identity}", "tier": f"tier-{identity % 5}", "pod-template-hash": "5d8f9c7b6d"}
    listed = [f"{key}={value}" for key, value in identity_labels(identity).items()]
    namespace = namespace_of(identity)
    return {
        "metadata": meta(
            name,
            namespace,
            labels=labels,
            ownerReferences=[owner],
            annotations={"podwire.io/workload": f"Deployment/app-{identity}"},
        ),
        "status": {
            "id": number % 4096,
            "external-identifiers": {
                "container-id": f"{number:064x}",
                "k8s-namespace": namespace,
                "k8s-pod-name": name,
                "pod-name": f"{namespace}/{name}",
            },
            "identity": {"id": 1000 + identity, "labels": listed},
            "networking": {
                "addressing": [{"ipv4": pod_address(number)}],
                "node": node_address(1 + number // 20),
            },
            "named-ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "policy": {"ingress": {"enforcing": True}, "egress": {"enforcing": False}},
            "state": "ready",
        },
    }


def pod(number: int) -> Object:
    """One of the agent's node."""
    env = [{"name": f"VARIABLE_{one}", "value": "a value of some length" * 2} for one in range(30)]
    return {
        "metadata": meta(f"local-{number}", "team-1", labels={"app": f"local-{number}", "tier": "tier-1"}),
        "spec": {
            "nodeName": NODE,
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/app:1",
                    "env": env,
                    "ports": [{"name": "http", "containerPort": 8080}],
                }
            ],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": f"10.0.0.{1 + number}"}]},
    }


def node(number: int) -> Object:
    images = [{"names": [f"registry.example/image-{one}:1"], "sizeBytes": 10**8} for one in range(20)]
    cidr = f"10.{number // 256}.{number % 256}.0/24"
    return {
        "metadata": meta(f"node-{number}", labels={"kubernetes.io/hostname": f"node-{number}"}),
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": node_address(number)}],
            "images": images,
        },
    }


def service(number: int) -> Object:
    return {
        "metadata": meta(f"service-{number}", namespace_of(number)),
        "spec": {
            "clusterIP": f"10.96.{number // 250}.{1 + number % 250}",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            "selector": {"app": f"app-{number}"},
        },
    }


def endpoint_slice(number: int) -> Object:
    pods = [number + IDENTITIES * one for one in range(ENDPOINTS_EACH)]
    return {
        "metadata": meta(
            f"service-{number}-x",
            namespace_of(number),
            labels={"kubernetes.io/service-name": f"service-{number}"},
        ),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [pod_address(one)], "conditions": {"ready": True}} for one in pods],
    }


def policy(number: int) -> Object:
    """Every pod of the node obeys several."""
    peers = [{"matchLabels": {"app": f"app-{number * 50 + one}"}} for one in range(5)]
    return {
        "metadata": meta(f"policy-{number}", "team-1"),
        "spec": {
            "endpointSelector": {"matchLabels": {"tier": "tier-1"}},
            "ingress": [
                {
                    "fromEndpoints": [
                        {"matchLabels": one["matchLabels"] | {"k8s:io.kubernetes.pod.namespace": "team-1"}}
                        for one in peers
                    ],
                    "toPorts": [{"ports": [{"port": str(8000 + number)}]}],
                }
            ],
        },
    }


def namespace(number: int) -> Object:
    return {"metadata": meta(f"team-{number}")}


def identity(number: int) -> Object:
    return {"metadata": meta(str(1000 + number)), "security-labels": identity_labels(number)}


class Simulated:
    """All kinds: how many there are, and how one is made."""

    def __init__(self, pods: int) -> None:
        self.kinds: dict[str, tuple[int, Callable[[int], Object]]] = {
            "namespaces": (NAMESPACES, namespace),
            "nodes": (NODES if pods else 1, node),
            "pods": (LOCAL_PODS, pod),
            "services": (SERVICES, service),
            "endpointslices": (SERVICES, endpoint_slice),
            "ciliumnetworkpolicies": (POLICIES, policy),
            "ciliumendpoints": (pods, endpoint),
            "ciliumidentities": (IDENTITIES, identity),
        }
        # Made before: making them is no part of an agent's start.
        self.made = {
            plural: [json.dumps(make(number)).encode() for number in range(count)]
            for plural, (count, make) in self.kinds.items()
        }

    async def serve(self) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            os._exit(0)  # watches end with it

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split()
                length = 0
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    if name.lower() == "content-length":
                        length = int(value)
                await reader.readexactly(length)
                await self._answer(writer, method, target)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, target: str) -> None:
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        if "watch" in query:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
            await writer.drain()
            await asyncio.Event().wait()
        plural = parts.path.rsplit("/", 1)[-1]
        if method == "GET" and plural in self.kinds:
            body = self._page(plural, int(query["limit"][0]), int(query.get("continue", ["0"])[0]))
        elif method == "GET" and parts.path.endswith(f"/nodes/{NODE}"):
            body = self.made["nodes"][0]
        else:
            body = b'{"metadata":{}}'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()

    def _page(self, plural: str, limit: int, first: int) -> bytes:
        items = self.made[plural]
        more = b""
        if first + limit < len(items):
            more = b',"continue":"%d"' % (first + limit)
        listed = b",".join(items[first : first + limit])
        return b'{"metadata":{"resourceVersion":"1000"%b},"items":[%b]}' % (more, listed)


if __name__ == "__main__":
    main()
