"""The gRPC server: sockets, TLS, what is refused, peers. On a socket of its own, without root."""

from __future__ import annotations

import asyncio
import datetime
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.ports import free_port
from tests.unit.hubble.conftest import Make

from podwire.api import flow_pb2, health_pb2, observer_pb2, peer_pb2
from podwire.base.aio import cancelling, eventually
from podwire.base.config import AgentConfig
from podwire.base.errors import ConfigError
from podwire.hubble.pipeline import Pipeline
from podwire.hubble.rpc import Address
from podwire.hubble.serve import Server
from podwire.model.cluster import OWN
from podwire.state.tables import NodeRow
from podwire.testing import flows


def call(channel: Any, path: str, request: Any, response: Any) -> Any:
    method = channel.unary_unary(path, lambda message: message.SerializeToString(), response.FromString)
    return method(request, timeout=5)


def stream(channel: Any, path: str, request: Any, response: Any) -> Any:
    method = channel.unary_stream(path, lambda message: message.SerializeToString(), response.FromString)
    return method(request)


@asynccontextmanager
async def serving(pipeline: Pipeline, address: Address) -> AsyncIterator[Any]:
    """A channel to the server's socket."""
    async with cancelling("server", Server(pipeline.flows, address).run()) as running:
        await eventually(
            lambda: Path(address.socket).exists() or running.done(), timeout=5, what="the socket"
        )
        async with grpc.aio.insecure_channel(f"unix:{address.socket}") as channel:
            yield channel


def test_the_socket_is_ours_alone_and_gone_afterwards(sampled: Pipeline, tmp_path: Path) -> None:
    socket = tmp_path / "run" / "hubble.sock"

    async def main() -> None:
        async with serving(sampled, Address(socket=str(socket))):
            assert stat.S_IMODE(socket.stat().st_mode) == 0o600

    asyncio.run(main())
    assert not socket.exists()


def test_health_status_nodes(sampled: Pipeline, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(sampled, Address(socket=str(tmp_path / "s"))) as channel:
            health = "/grpc.health.v1.Health/Check"
            asked = health_pb2.HealthCheckRequest(service="hubble.server.Observer")
            answer = await call(channel, health, asked, health_pb2.HealthCheckResponse)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            asked = health_pb2.HealthCheckRequest(service="other")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, health, asked, health_pb2.HealthCheckResponse)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

            observer = "/observer.Observer"
            status = await call(
                channel,
                f"{observer}/ServerStatus",
                observer_pb2.ServerStatusRequest(),
                observer_pb2.ServerStatusResponse,
            )
            assert (status.num_flows, status.max_flows, status.seen_flows) == (12, 1024, 12)
            assert status.version.startswith("podwire v")
            nodes = await call(
                channel, f"{observer}/GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse
            )
            assert [node.name for node in nodes.nodes] == ["default/n1"]

    asyncio.run(main())


def test_namespaces_are_those_of_the_last_hour(make: Make, tmp_path: Path) -> None:
    pipeline, ring = make()
    pipeline._boot_to_wall = 0  # the times of flows are those that the test says
    spaces = observer_pb2.GetNamespacesRequest(), observer_pb2.GetNamespacesResponse
    now = time.time_ns()

    async def main() -> None:
        async with serving(pipeline, Address(socket=str(tmp_path / "s"))) as channel:

            async def namespaces() -> list[str]:
                answer = await call(channel, "/observer.Observer/GetNamespaces", *spaces)
                return [each.namespace for each in answer.namespaces]

            ring.emit(flows.event(time=now - 2 * 3600 * 10**9))
            pipeline.drain()
            assert await namespaces() == []
            ring.emit(flows.event(time=now))
            pipeline.drain()
            assert await namespaces() == ["prod"]

    asyncio.run(main())


def test_flows_and_the_version_header(sampled: Pipeline, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(sampled, Address(socket=str(tmp_path / "s"))) as channel:
            request = observer_pb2.GetFlowsRequest(
                number=2, whitelist=[flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED])]
            )
            answer = stream(channel, "/observer.Observer/GetFlows", request, observer_pb2.GetFlowsResponse)
            assert dict(await answer.initial_metadata())["hubble-server-version"]
            found = [response async for response in answer]
            assert [response.flow.drop_reason for response in found] == [181, 222]
            assert {response.node_name for response in found} == {"default/n1"}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        (
            "GetFlows",
            observer_pb2.GetFlowsRequest(whitelist=[flow_pb2.FlowFilter(source_ip=["x"])]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "whitelist[0].source_ip",
        ),
        (
            "GetFlows",
            observer_pb2.GetFlowsRequest(first=True, follow=True),
            grpc.StatusCode.INVALID_ARGUMENT,
            "first",
        ),
        (
            "GetAgentEvents",
            observer_pb2.GetAgentEventsRequest(),
            grpc.StatusCode.UNIMPLEMENTED,
            "agent events",
        ),
        (
            "GetDebugEvents",
            observer_pb2.GetDebugEventsRequest(),
            grpc.StatusCode.UNIMPLEMENTED,
            "debug events",
        ),
    ],
)
def test_what_is_refused_is_named(
    sampled: Pipeline, tmp_path: Path, method: str, request_: Any, code: Any, words: str
) -> None:
    async def main() -> None:
        async with serving(sampled, Address(socket=str(tmp_path / "s"))) as channel:
            answer = stream(channel, f"/observer.Observer/{method}", request_, observer_pb2.GetFlowsResponse)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer.read()
            assert caught.value.code() == code
            assert words in caught.value.details()

    asyncio.run(main())


def test_peers_come_and_go(sampled: Pipeline, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(sampled, Address(socket=str(tmp_path / "s"))) as channel:
            notified = stream(
                channel, "/peer.Peer/Notify", peer_pb2.NotifyRequest(), peer_pb2.ChangeNotification
            )
            async with asyncio.timeout(5):
                first = [await notified.read(), await notified.read()]
                assert {(each.name, each.type) for each in first} == {("default/n1", 1), ("default/n2", 1)}
                assert {each.address for each in first} == {f"unix://{tmp_path}/s", "192.168.7.2:4244"}
                nodes = sampled.flows.tables.nodes
                nodes.put(NodeRow("n2", ("192.168.7.9",), (), {}, False))
                updated = await notified.read()
                assert (updated.address, updated.type) == ("192.168.7.9:4244", peer_pb2.PEER_UPDATED)
                nodes.put(NodeRow("n2", ("192.168.8.2",), (), {}, False, cluster="west"))
                elsewhere = await notified.read()
                assert (elsewhere.name, elsewhere.address) == ("west/n2", "192.168.8.2:4244")
                nodes.put(NodeRow("n1", ("192.168.8.1",), (), {}, False, cluster="west"))
                named_as_this = await notified.read()
                assert (named_as_this.name, named_as_this.address) == ("west/n1", "192.168.8.1:4244")
                nodes.delete((OWN, "n2"))
                assert (await notified.read()).type == peer_pb2.PEER_DELETED
            notified.cancel()

    asyncio.run(main())


# --- TLS -------------------------------------------------------------------------------------------------


def certificate(directory: Path, name: str, issuer: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """A certificate for localhost, of `issuer` or its own; written as name.crt and name.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (directory / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made, key


def test_tcp_is_served_with_tls_and_only_to_those_with_a_certificate(
    sampled: Pipeline, tmp_path: Path
) -> None:
    port = free_port()
    authority = certificate(tmp_path, "ca")
    for name in ("server", "client"):
        certificate(tmp_path, name, authority)
    certificate(tmp_path, "stranger")
    read = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    address = Address(
        socket=str(tmp_path / "s"),
        listen=f"127.0.0.1:{port}",
        certificate=str(tmp_path / "server.crt"),
        key=str(tmp_path / "server.key"),
        client_ca=str(tmp_path / "ca.crt"),
    )

    async def ask(credentials: Any) -> Any:
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_http_proxy", 0)]
        target = f"127.0.0.1:{port}"
        channel = (
            grpc.aio.secure_channel(target, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(target, options)
        )
        async with channel:
            return await call(
                channel,
                "/observer.Observer/ServerStatus",
                observer_pb2.ServerStatusRequest(),
                observer_pb2.ServerStatusResponse,
            )

    async def main() -> None:
        async with serving(sampled, address):
            known = grpc.ssl_channel_credentials(read["ca.crt"], read["client.key"], read["client.crt"])
            assert (await ask(known)).num_flows == 12
            unknown = grpc.ssl_channel_credentials(read["ca.crt"], read["stranger.key"], read["stranger.crt"])
            for credentials in (unknown, grpc.ssl_channel_credentials(read["ca.crt"]), None):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(credentials)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_tcp_without_a_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="hubble-tls-cert"):
        Address.of_agent(AgentConfig(node_name="n1", hubble_listen_address="0.0.0.0:4244"))


def test_a_certificate_that_is_not_there_is_named(sampled: Pipeline, tmp_path: Path) -> None:
    address = Address(socket="", listen="127.0.0.1:1", certificate=str(tmp_path / "no.crt"), key="x")

    async def main() -> None:
        with pytest.raises(ConfigError, match=r"no\.crt"):
            await Server(sampled.flows, address).run()

    asyncio.run(main())
