"""Each inspection command against a real socket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from podwire.base.errors import InvalidObject, NotFound, Unreachable, UsageError
from podwire.cli.explain import _found
from podwire.cli.monitor import line_of
from podwire.client.agent import AgentClient

Podwire = Callable[..., Result]
FLOW = "11111111-2222-3333-4444-555555555555"

LISTS = [
    ("endpoint", "list"),
    ("endpoint", "get", "5"),
    ("identity", "list"),
    ("identity", "get", "1234"),
    ("service", "list"),
    ("bpf", "lb", "list"),
    ("bpf", "ct", "list"),
    ("bpf", "policy", "list"),
    ("bpf", "ipcache", "list"),
    ("policy", "get"),
    ("policy", "selectors"),
    ("metrics", "list"),
    ("tables",),
    ("tables", "endpoints"),
    ("explain", FLOW),
    ("status",),
    ("status", "--verbose"),
]


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_prints_a_table_or_json(podwire: Podwire, command: tuple[str, ...]) -> None:
    table = podwire(*command)
    assert table.exception is None and table.output.strip()
    assert json.loads(podwire(*command, "-o", "json").output) is not None


def test_endpoint_list_has_ciliums_columns(podwire: Podwire) -> None:
    heading, first, second, *_ = podwire("endpoint", "list").output.splitlines()
    assert heading.split("   ")[0] == "ENDPOINT"
    for column in (
        "POLICY (ingress)",
        "POLICY (egress)",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "STATUS",
    ):
        assert column in heading
    assert first.split() == [
        "5",
        "Enabled",
        "Disabled",
        "1234",
        "k8s:app=web",
        "fd00:1::1",
        "10.0.1.1",
        "ready",
    ]
    assert second.split() == ["k8s:io.kubernetes.pod.namespace=prod"]


def test_service_list_says_what_is_not_served(podwire: Podwire) -> None:
    output = podwire("service", "list").output
    assert "10.96.0.1:80/TCP" in output and "1 => 10.0.1.1:8080/TCP (active)" in output
    assert "NodePort 30080" in output


def test_policies_say_because(podwire: Podwire) -> None:
    assert "CiliumNetworkPolicy prod/allow-web ingress[0]" in podwire("bpf", "policy", "list").output
    output = podwire("policy", "get").output
    assert "spec.ingress[0]" in output and "8080/TCP" in output and "k8s:app=client" in output
    assert "spec.ingress[0].from: must be a list" in output
    assert "broken" not in podwire("policy", "get", "prod/allow-web").output


def test_status_ends_with_1_if_something_is_wrong(podwire: Podwire, node: Any) -> None:
    good = podwire("status")
    assert good.return_value == 0 and "Ok" in good.output
    assert "Not in force" in good.output and "NetworkPolicy prod/broken" in good.output
    assert podwire("status", "--brief").output == "OK\n"
    node.components["datapath"] = ("Failure", "map podwire_policy is full\x1b[2J")
    bad = podwire("status")
    assert bad.return_value == 1 and "map podwire_policy is full\\x1b[2J" in bad.output
    assert podwire("status", "--wait", "--wait-duration", "0.05").return_value == 1


def test_monitor_prints_events_safely(podwire: Podwire, node: Any) -> None:
    node.events.offer({"verdict": "FORWARDED", "IP": {"source": "10.0.0.1", "destination": "10.0.0.2"}})
    node.events.offer(
        {
            "time": "2026-01-01T00:00:00Z",
            "verdict": "DROPPED",
            "drop_reason_desc": "POLICY_DENIED",
            "IP": {"source": "10.0.0.1", "destination": "10.0.0.2"},
            "l4": {"TCP": {"source_port": 4000, "destination_port": 80}},
            "source": {"namespace": "prod", "pod_name": "a\x1b[0m"},
            "destination": {},
        }
    )
    assert podwire("monitor", "-n", "1", "--drops").output.splitlines() == [
        "2026-01-01T00:00:00Z  prod/a\\x1b[0m:4000 -> 10.0.0.2:80  TCP  DROPPED  POLICY_DENIED",
    ]
    assert line_of({"verdict": "FORWARDED", "IP": {"source": "10.0.0.1", "destination": "fd00::2"}}) == (
        "10.0.0.1 -> fd00::2  FORWARDED"
    )


def test_what_does_not_exist_is_named(podwire: Podwire) -> None:
    assert isinstance(podwire("endpoint", "get", "77").exception, NotFound)
    assert isinstance(podwire("endpoint", "get", "../../x").exception, InvalidObject)
    assert isinstance(podwire("tables", "nothing").exception, NotFound)
    assert isinstance(podwire("explain", FLOW.replace("1", "9")).exception, NotFound)
    assert isinstance(podwire("bpf", "ct", "list", "77").exception, NotFound)


@pytest.mark.parametrize("text", ["", "none", "../x", FLOW + "\n", FLOW[:-1]])
def test_what_is_no_uuid_is_said_to_be_none(podwire: Podwire, text: str) -> None:
    error = podwire("explain", text).exception
    assert isinstance(error, UsageError) and "is no UUID" in str(error) and error.hint


@pytest.mark.parametrize("command", [("tables", ""), ("endpoint", "get", ""), ("identity", "get", "")])
def test_an_empty_name_shows_no_path(podwire: Podwire, command: tuple[str, ...]) -> None:
    error = podwire(*command).exception
    assert isinstance(error, UsageError) and "/" not in str(error)


def test_a_flow_that_no_node_has_says_who_was_asked(node: Any, tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    for name in ("n1", "n2", "n3"):
        (nodes / name).mkdir(parents=True)
    for name in ("n1", "n2"):
        (nodes / name / "podwire.sock").symlink_to(node.config.socket)
    agent = AgentClient(nodes / "n1" / "podwire.sock", node="n1")
    missing = FLOW.replace("1", "9")
    with pytest.raises(NotFound, match=r"any of the nodes n1, n2$") as caught:
        _found(agent, missing, f"/podwire/v1/explain/{missing}")
    assert "no answer from n3" in str(caught.value.hint)


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300"])
def test_no_wait_without_an_end(podwire: Podwire, seconds: str) -> None:
    error = podwire("status", "--wait", "--wait-duration", seconds).exception
    assert isinstance(error, UsageError | click.UsageError)
    said = error.format_message() if isinstance(error, click.UsageError) else str(error)
    assert "--wait-duration" in said


def test_a_brief_status_is_json_too(podwire: Podwire) -> None:
    assert set(json.loads(podwire("status", "--brief", "-o", "json").output)) == {"state", "msg"}


def test_a_policy_that_is_not_there_is_an_error(podwire: Podwire) -> None:
    error = podwire("policy", "get", "nope").exception
    assert isinstance(error, NotFound) and "nope" in str(error) and error.hint


def test_flags_win_over_the_environment(podwire: Podwire, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODWIRE_SANDBOX", "elsewhere")
    assert podwire("status", "--socket", str(node.config.socket)).return_value == 0
    error = podwire("status", "--sandbox", "nowhere").exception  # PODWIRE_SOCKET is set as well
    assert isinstance(error, NotFound) and "nowhere" in str(error)


def test_env_is_about_the_sandbox_of_the_environment(
    podwire: Podwire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODWIRE_SANDBOX", "nowhere")
    assert "nowhere" in str(podwire("sandbox", "env").exception)


def test_an_agent_that_is_away_is_named(podwire: Podwire, tmp_path: Path) -> None:
    result = podwire("status", "--socket", str(tmp_path / "none.sock"))
    assert isinstance(result.exception, Unreachable)
    assert "the agent is not running" in str(result.exception)


HEAVY = ("aiohttp", "asyncio", "grpc", "numpy", "pyroute2", "email", "ssl", "cffi", "yaml", "podwire.state")


def test_status_imports_nothing_heavy(node: Any) -> None:
    """What costs start-up time is not loaded (the target is 150 ms for the whole command)."""
    script = (
        "import sys; from podwire.cli import cli;"
        "cli.main(['status'], standalone_mode=False);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={"PODWIRE_SOCKET": str(node.config.socket)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr.strip() == "[]"


# --- lists from the kernel ------------------------------------------------------------------------


def test_filters_go_to_the_agent(podwire: Podwire, node: Any) -> None:
    podwire("bpf", "ct", "list", "5", "--pod", "prod/web-1", "--address", "10.0.0.0/8", "--protocol", "Tcp")
    podwire("bpf", "policy", "list", "--port", "80")
    assert node.asked == [
        {"endpoint": "5", "pod": "prod/web-1", "address": "10.0.0.0/8", "protocol": "Tcp"},
        {"port": "80"},
    ]


def test_json_is_a_list_with_a_row_a_line(podwire: Podwire, node: Any) -> None:
    node.more = [[{"frontend": "a\x7f\u202eb", "slot": number} for number in range(1, 3000)]]
    output = podwire("bpf", "lb", "list", "-o", "json").output
    first, *rows, last = output.splitlines()
    assert (first, last, len(rows)) == ("[", "]", 3000)
    assert json.loads(output)[-1] == {"frontend": "a\x7f\u202eb", "slot": 2999}
    assert output.isascii() and "\x7f" not in output
    node.more = []
    assert podwire("bpf", "ct", "list", "-o", "json").output == "[]\n"


def test_a_long_table_is_aligned_by_pages(podwire: Podwire, node: Any) -> None:
    """Columns grow with what comes later and never shrink."""
    wide = {"frontend": "x" * 60, "service": "s"}
    node.more = [
        [{"frontend": "y", "service": "s"}] * 1500,
        [wide],
        [{"frontend": "z", "service": "s"}] * 1500,
    ]
    lines = podwire("bpf", "lb", "list").output.splitlines()
    assert len(lines) == 2 + 1500 + 1 + 1500
    narrow, last = lines[2], lines[-1]
    assert narrow.split() == ["y", "s"] and last.split() == ["z", "s"]
    assert last.index("s") - narrow.index("s") == 60 - len("10.96.0.1:80/TCP")


@pytest.mark.parametrize(
    ("arguments", "named", "allowed"),
    [
        (("ct", "list", "--port", "-1"), "--port", "0<=x<=65535"),
        (("ct", "list", "--port", "http"), "--port", "http"),
        (("ct", "list", "--address", "10.0.0.0/33"), "--address", "10.0.0.0/33"),
        (("ct", "list", "--address", ""), "--address", "10.0.0.1"),
        (("lb", "list", "--protocol", "quic" * 100), "--protocol", "SCTP"),
        (("lb", "list", "--pod", "a/b/c"), "--pod", "NAMESPACE"),
        (("ct", "list", "nan"), "global", "its number"),
        (("policy", "list", "-5"), "-5", "such option"),
        (("policy", "list", "65536"), "ENDPOINT", "65535"),
    ],
)
def test_a_wrong_filter_is_named_with_what_would_do(
    podwire: Podwire, arguments: tuple[str, ...], named: str, allowed: str
) -> None:
    error = podwire("bpf", *arguments).exception
    assert isinstance(error, click.ClickException)
    assert named in error.format_message() and allowed in error.format_message()
    assert len(error.format_message()) < 300
