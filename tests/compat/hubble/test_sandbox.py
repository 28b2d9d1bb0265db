"""The unmodified hubble CLI on a sandbox: real packets, real names, the rule that decided."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.compat, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[3]
NAME = f"hubble-{os.getpid()}"


def podwire(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "podwire.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    """HUBBLE_SERVER of a sandbox with the lab first-light."""
    try:
        up = podwire("sandbox", "up", "--name", NAME, "-f", str(ROOT / "labs" / "first-light"))
        assert up.returncode == 0, up.stderr
        exports = podwire("sandbox", "env", "--name", NAME).stdout
        yield exports.partition("HUBBLE_SERVER=")[2].split()[0].strip("'\"")
    finally:
        podwire("sandbox", "down", "--name", NAME)


def curl(pod: str, url: str) -> int:
    return podwire(
        "sandbox", "exec", "--name", NAME, "-n", "prod", pod, "--", "curl", "-s", "-m", "1", url
    ).returncode


def observed(hubble: Path, server: str, *arguments: str) -> list[dict]:
    command = [hubble, "observe", "--server", server, "-o", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return [json.loads(line)["flow"] for line in done.stdout.splitlines()]


def test_allowed_denied_and_why(hubble: Path, sandbox: str) -> None:
    assert curl("frontend", "http://backend:8080/") == 0
    assert curl("unauthorized", "http://backend:8080/") == 28  # no answer
    query = ["--from-namespace", "prod", "--to-pod", "prod/backend"]

    allowed = observed(hubble, sandbox, *query, "--from-pod", "prod/frontend", "--type", "policy-verdict")[-1]
    assert allowed["verdict"] == "FORWARDED"
    assert allowed["traffic_direction"] == "INGRESS"
    assert allowed["is_reply"] is False
    assert allowed["l4"]["TCP"]["destination_port"] == 8080
    assert allowed["l4"]["TCP"]["flags"] == {"SYN": True}
    assert allowed["source"]["pod_name"] == "frontend"
    assert "k8s:app=frontend" in allowed["source"]["labels"]
    assert allowed["source"]["identity"] > 255
    assert allowed["destination_service"] == {"name": "backend", "namespace": "prod"}
    assert "podwire:clause=ingress[0]" in allowed["ingress_allowed_by"][0]["labels"]

    dropped = observed(hubble, sandbox, *query, "--verdict", "DROPPED", "--type", "drop")[-1]
    assert dropped["drop_reason_desc"] == "POLICY_DENIED"
    assert dropped["source"]["pod_name"] == "unauthorized"
    assert [policy["name"] for policy in dropped["ingress_denied_by"]] == ["backend"]
    assert not observed(
        hubble, sandbox, *query, "--from-pod", "prod/unauth", "--verdict", "FORWARDED", "--type", "l7"
    )

    explained = podwire(
        "explain", "--sandbox", NAME, "--node", dropped["node_name"].partition("/")[2], dropped["uuid"]
    )
    assert explained.returncode == 0, explained.stderr
    assert "Default deny for ingress" in explained.stdout
    assert "ingress[0]: the peer is not [app=frontend" in explained.stdout


def test_the_service_shows_at_the_socket(hubble: Path, sandbox: str) -> None:
    assert curl("frontend", "http://backend:8080/") == 0
    found = observed(
        hubble, sandbox, "--type", "trace-sock", "--from-pod", "prod/frontend", "--to-port", "8080"
    )[-1]
    assert found["verdict"] == "TRANSLATED"
    assert found["destination_service"] == {"name": "backend", "namespace": "prod"}
    assert found["destination"]["pod_name"].startswith("backend-")


def test_both_nodes_are_listed(hubble: Path, sandbox: str) -> None:
    command = [hubble, "list", "nodes", "--server", sandbox]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        [f"{NAME}/n1", "Connected"],
        [f"{NAME}/n2", "Connected"],
    ]


def test_following_sees_what_comes(hubble: Path, sandbox: str) -> None:
    command = [hubble, "observe", "-f", "--last", "1", "--server", sandbox, "-o", "json"]
    command += ["--to-pod", "prod/backend", "--from-pod", "prod/frontend", "--type", "policy-verdict"]
    assert curl("frontend", "http://backend:8080/") == 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        try:
            # The last one of a node tells that it follows; what comes now is new.
            seen = {json.loads(follow.stdout.readline())["flow"]["uuid"]}
            assert curl("frontend", "http://backend:8080/") == 0
            while len(seen) < 2:
                seen.add(json.loads(follow.stdout.readline())["flow"]["uuid"])
        finally:
            follow.terminate()
