"""Two nodes behind podwire's relay, asked by the unmodified hubble CLI."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ports import free_port

from podwire.base.aio import eventually

# Building what is tested against takes minutes the first time.
pytestmark = [pytest.mark.compat, pytest.mark.timeout(900)]
HERE = Path(__file__).parent


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    started: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in ("n1", "n2"):
            started[name] = subprocess.Popen(
                [sys.executable, HERE / "serve.py", tmp_path / name, name], stdout=subprocess.PIPE, text=True
            )
        for process in started.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield started
    finally:
        for process in started.values():
            process.terminate()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def relay(nodes: dict[str, subprocess.Popen[str]], tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "relay.sock"
    peers = [f"default/{name}=unix://{tmp_path}/{name}/hubble.sock" for name in nodes]
    process = subprocess.Popen([sys.executable, "-m", "podwire.hubble.relay", "--socket", path, *peers])
    try:
        asyncio.run(eventually(path.exists, timeout=10, what="the relay's socket"))
        yield f"unix://{path}"
    finally:
        process.terminate()
        process.wait()


def ask(program: list[str], relay: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*program, *arguments, "--server", relay]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_flows_of_all_nodes_in_order_and_a_node_that_is_away(
    hubble: Path, nodes: dict[str, subprocess.Popen[str]], relay: str
) -> None:
    program = [str(hubble)]
    answer = ask(program, relay, "observe", "--all", "-o", "json")
    flows = [json.loads(line) for line in answer.stdout.splitlines()]
    times = [each["time"] for each in flows]
    assert times == sorted(times)
    assert {each["node_name"] for each in flows} == {"default/n1", "default/n2"}
    assert len(flows) == 24
    assert len({each["flow"]["uuid"] for each in flows}) == 24

    status = ask(program, relay, "status").stdout
    assert "Connected Nodes: 2/2" in status
    assert "Current/Max Flows: 24/524,288" in status
    listed = ask(program, relay, "list", "nodes").stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["default/n1", "Connected"],
        ["default/n2", "Connected"],
    ]
    assert ask(program, relay, "list", "namespaces").stdout.split() == ["NAMESPACE", "prod"]
    wrong = ask(program, relay, "observe", "--all", "--protocol", "nonsense")
    assert wrong.returncode != 0
    assert "nonsense" in wrong.stderr

    nodes["n2"].terminate()
    nodes["n2"].wait()
    answer = ask(program, relay, "observe", "--all")
    assert answer.returncode == 0
    assert len(answer.stdout.splitlines()) == 12
    assert "1 nodes are unavailable: default/n2" in answer.stderr
    status = ask(program, relay, "status").stdout
    assert "Connected Nodes: 1/2" in status
    assert "  - default/n2" in status


def test_following_both(hubble: Path, relay: str) -> None:
    follow = subprocess.Popen(
        [str(hubble), "observe", "-f", "--last", "3", "-o", "json", "--server", relay],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None
    try:
        # The newest three of both together, which have flows of the same moments.
        lines = [json.loads(follow.stdout.readline()) for _ in range(3)]
    finally:
        follow.terminate()
        follow.wait()
        follow.stdout.close()
    assert {line["node_name"] for line in lines} == {"default/n1", "default/n2"}
    last = ask([str(hubble)], relay, "observe", "--last", "3", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["flow"]["uuid"] for line in last] == [line["flow"]["uuid"] for line in lines]


def test_ciliums_own_relay_on_our_peer_service(
    hubble: Path, hubble_relay: Path, nodes, tmp_path: Path
) -> None:
    listen, health = free_port(), free_port()
    arguments = [
        "--peer-service",
        f"unix://{tmp_path}/n1/hubble.sock",
        "--listen-address",
        f"127.0.0.1:{listen}",
    ]
    arguments += ["--health-listen-address", f"127.0.0.1:{health}", "--metrics-listen-address", ""]
    arguments += ["--disable-client-tls", "--disable-server-tls", "--retry-timeout", "1s", "--gops=false"]
    with (tmp_path / "relay.log").open("w") as log:
        process = subprocess.Popen([hubble_relay, "serve", *arguments], stdout=log, stderr=log)
    try:
        relay = f"127.0.0.1:{listen}"

        def up() -> bool:
            # It says that it serves some seconds after it does.
            return ask([str(hubble)], relay, "status").returncode == 0

        asyncio.run(eventually(up, timeout=30, what="the relay to serve", interval=0.3))
        assert "Connected Nodes: 1" in ask([str(hubble)], relay, "status").stdout
        listed = ask([str(hubble)], relay, "list", "nodes").stdout
        assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["default/n1", "Connected"]]
        answer = ask([str(hubble)], relay, "observe", "--all", "--verdict", "DROPPED", "-o", "json")
        assert len(answer.stdout.splitlines()) == 4
        assert '"pod_name":"unauthorized"' in answer.stdout
    finally:
        process.kill()  # it does not end on SIGTERM
        process.wait()
