"""The unmodified hubble CLI on podwire's server, and podwire's own output byte for byte like it."""

from __future__ import annotations

import json
import re

import pytest

# Building what is tested against takes minutes the first time.
pytestmark = [pytest.mark.compat, pytest.mark.timeout(900)]

FILTERS = [
    [],
    ["--pod", "prod/frontend"],
    ["--to-pod", "prod/backend"],
    ["--from-pod", "prod/unauth", "--verdict", "DROPPED"],
    ["--namespace", "prod", "--protocol", "icmp"],
    ["--ip", "198.51.100.0/24"],
    ["--from-ip", "10.0.1.4"],
    ["--label", "app=backend"],
    ["--to-label", "app in (backend,other),!canary"],
    ["--from-label", "reserved:world"],
    ["--service", "prod/back"],
    ["--to-service", "prod/backend"],
    ["--workload", "Deployment/backend"],
    ["--identity", "world"],
    ["--to-identity", "1002"],
    ["--port", "8080"],
    ["--to-port", "53"],
    ["--type", "trace"],
    ["--type", "trace:to-overlay", "--type", "drop"],
    ["--type", "policy-verdict"],
    ["--type", "trace-sock"],
    ["--verdict", "FORWARDED", "--verdict", "TRANSLATED"],
    ["--drop-reason-desc", "POLICY_DENY"],
    ["--tcp-flags", "syn,ack"],
    ["--node-name", "n*"],
    ["--node-name", "other/n1"],
    ["--node-label", "role=worker"],
    ["--traffic-direction", "egress"],
    ["-4"],
    ["-6"],
    ["--ip-version", "none"],
    ["--not", "--protocol", "tcp"],
    ["--not", "--verdict", "DROPPED", "--to-pod", "prod/backend"],
    ["--allowlist", '{"reply":[true]}'],
    ["--http-status", "404"],
    ["--fqdn", "*.example.com"],
    ["--cluster", "default"],
    ["--unencrypted"],
]
FORMS = [["-o", form] for form in ("compact", "dict", "table", "json", "jsonpb")]
STYLES = [
    ["--print-node-name"],
    ["--print-policy-names"],
    ["--numeric"],
    ["--ip-translation=false"],
    ["--time-format", "RFC3339Nano"],
    ["--time-format", "RFC1123Z"],
    ["--time-format", "YearMonthDayHourMinute"],
    ["--use-default-field-masks=false", "--print-policy-names"],
    ["--color", "always"],
    ["--color", "always", "-o", "dict"],
    ["-o", "dict", "--print-node-name"],
    ["-o", "table", "--print-node-name"],
    ["-o", "json", "--field-mask", "uuid,IP.source,Summary"],
]
WINDOWS = [["--first", "3"], ["--last", "3"], ["--since", "1h"], ["--since", "1h", "--until", "1s"]]


def same(run, *arguments: str) -> str:
    """What both print; asserts that it is the same."""
    theirs, ours = run("hubble", "observe", *arguments), run("podwire", "observe", *arguments)
    assert theirs[0] == ours[0] == 0, theirs[2] + ours[2]
    # podwire's own drop reasons have no text in hubble.
    assert ours[1].replace("Redirect to the endpoint failed", "222, 0").split() == theirs[1].split()
    if "222, 0" not in theirs[1]:
        assert ours[1] == theirs[1]
    return theirs[1]


@pytest.mark.parametrize("wanted", FILTERS, ids=" ".join)
def test_filters_select_the_same(run, wanted: list[str]) -> None:
    same(run, "--all", *wanted)


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_forms_are_the_same_byte_for_byte(run, form: list[str]) -> None:
    assert same(run, "--all", "--not", "--ip-version", "none", *form)


@pytest.mark.parametrize("style", STYLES, ids=" ".join)
def test_styles_are_the_same(run, style: list[str]) -> None:
    assert same(run, "--all", "--not", "--ip-version", "none", *style)


@pytest.mark.parametrize("window", WINDOWS, ids=" ".join)
def test_windows_are_the_same(run, window: list[str]) -> None:
    assert same(run, *window)


def test_times_select_the_same(run) -> None:
    times = [
        json.loads(line)["time"] for line in run("hubble", "observe", "--all", "-o", "json")[1].splitlines()
    ]
    since, until = times[3], times[7]
    assert len(same(run, "--since", since).splitlines()) == len(times) - 3
    assert len(same(run, "--since", since, "--until", until).splitlines()) == 5
    assert len(same(run, "--since", since, "--last", "2").splitlines()) == 2


def test_a_verdict_says_its_direction_although_hubble_does_not_ask(run) -> None:
    printed = same(run, "--all", "--type", "policy-verdict", "--print-policy-names")
    assert "policy-verdict:L3-L4 INGRESS ALLOWED BY backend (CiliumNetworkPolicy)" in printed
    assert "policy-verdict:none INGRESS DENIED BY backend (CiliumNetworkPolicy)" in printed


def test_json_has_names_policies_and_ids(run) -> None:
    flows = [json.loads(line)["flow"] for line in same(run, "--all", "-o", "json").splitlines()]
    denied = next(flow for flow in flows if flow["event_type"]["type"] == 1)
    assert denied["drop_reason_desc"] == "POLICY_DENIED"
    assert denied["ingress_denied_by"][0]["name"] == "backend"
    assert denied["source"]["pod_name"] == "unauthorized"
    assert len({flow["uuid"] for flow in flows}) == len(flows)
    found = same(run, "--all", "--uuid", denied["uuid"], "-o", "json")
    assert json.loads(found)["flow"] == denied


@pytest.mark.parametrize("form", ["compact", "json"])
def test_status(run, form: str) -> None:
    theirs, ours = run("hubble", "status", "-o", form), run("podwire", "status", "-o", form)
    assert theirs[0] == ours[0] == 0
    if form == "compact":
        assert theirs[1].splitlines()[:2] == ours[1].splitlines()[:2]
        assert "Healthcheck (via unix://" in theirs[1]
        assert "Current/Max Flows: 12/262,144" in theirs[1]
    else:
        assert json.loads(theirs[1]).keys() == json.loads(ours[1]).keys()


@pytest.mark.parametrize("form", ["dict", "table"])
def test_status_has_the_same_words(run, form: str) -> None:
    theirs, ours = run("hubble", "status", "-o", form)[1], run("podwire", "status", "-o", form)[1]
    # Time goes on between the two.
    assert re.sub(r"[0-9.]+m?s?", "#", theirs).split() == re.sub(r"[0-9.]+m?s?", "#", ours).split()


@pytest.mark.parametrize("form", ["table", "wide", "json"])
def test_namespaces(run, form: str) -> None:
    theirs = run("hubble", "list", "namespaces", "-o", form)
    ours = run("podwire", "list", "namespaces", "-o", form)
    assert theirs[0] == ours[0] == 0
    assert theirs[1] == ours[1]
    assert "prod" in theirs[1]


def test_nodes(run) -> None:
    code, printed, _ = run("hubble", "list", "nodes", "-o", "wide")
    assert code == 0
    assert "default/n1   Connected" in printed
    ours = run("podwire", "list", "nodes", "-o", "wide")[1]
    assert ours.splitlines()[0].split() == printed.splitlines()[0].split()
    assert ours.split()[8:10] == printed.split()[8:10]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--allowlist", '{"source_ip":["no"]}'],
        ["--cel-expression", "true"],
        ["--protocol", "nonsense"],
        ["--from-label", "a in (b"],
        ["--first", "3", "--follow"],
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_refused(run, arguments: list[str]) -> None:
    code, printed, error = run("hubble", "observe", *arguments)
    assert code != 0
    assert not printed
    assert error


def test_agent_events_are_refused_by_name(run) -> None:
    code, _, error = run("hubble", "observe", "agent-events")
    assert code != 0
    assert "agent events" in error


@pytest.mark.parametrize(
    "flags",
    [
        ["--pod", "a/b", "--not", "--port", "80"],
        ["-n", "prod", "--from-label", "app=x", "--verdict", "DROPPED"],
        ["--to-namespace", "a", "--to-service", "web"],
        ["--from-all-namespaces", "--type", "trace:from-host"],
        ["--workload", "web", "--identity", "host", "--tcp-flags", "SYN,ack"],
        ["--pod", "x", "--snat-ip", "10.0.0.1", "--interface", "eth0"],
        ["--fqdn", "it's<here>", "--http-header", "a:b"],
        [],
    ],
    ids=" ".join,
)
def test_flags_become_the_same_filters(run, flags: list[str]) -> None:
    theirs = run("hubble", "observe", "--print-raw-filters", *flags)
    ours = run("podwire", "observe", "--print-raw-filters", *flags)
    assert theirs[0] == ours[0] == 0, theirs[2] + ours[2]
    assert theirs[1] == ours[1]
