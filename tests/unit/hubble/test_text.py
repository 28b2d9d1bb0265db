"""Text of flows: nothing in them acts on a terminal; times, durations, flags."""

from __future__ import annotations

import itertools
import re
import sys
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from podwire.api import flow_pb2, observer_pb2
from podwire.base.errors import InvalidObject, UsageError
from podwire.cli import hubble_request, hubble_status, hubble_text
from podwire.cli.hubble_filters import FilterFlags
from podwire.cli.hubble_print import FORMS
from podwire.cli.hubble_text import Style
from podwire.hubble import labelselector, patterns

NASTY = "a\x1b[31mred\r\n\x07\x9b2J\u2028\u202ez"


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_is_in_a_flow_cannot_act_on_a_terminal(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    flow = flow_pb2.Flow(node_name=NASTY, Summary=NASTY, verdict=2, drop_reason_desc=133)
    flow.IP.source = flow.IP.destination = "10.0.0.1"
    flow.source.pod_name = flow.source.namespace = flow.destination_service.name = NASTY
    flow.ingress_denied_by.add(name=NASTY, namespace=NASTY, kind=NASTY, labels=[f"podwire:clause={NASTY}"])
    flow.event_type.type, flow.traffic_direction = 5, 1
    printer = FORMS[form](Style(node=True, policies=True, because=True), follow=False, silent=False)
    response = observer_pb2.GetFlowsResponse(flow=flow, node_name=NASTY)
    lost = observer_pb2.GetFlowsResponse(node_name=NASTY)
    lost.lost_events.num_events_lost = 3
    status = observer_pb2.GetFlowsResponse(node_name=NASTY)
    status.node_status.state_change = 4
    status.node_status.node_names.append(NASTY)
    status.node_status.message = NASTY
    for each in (response, lost, status):
        printer.write(each)
    printer.close()
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert text
        assert all(char.isprintable() or char == "\n" for char in text), ascii(text)
    assert printed.out.count("red") >= 4
    lines = {"dict": 15, "table": 3, "tab": 3}.get(form, 2)
    assert len(printed.out.splitlines()) == lines


def test_plain_text_stays_as_it_is() -> None:
    for text in ("prod/frontend", "TCP Flags: SYN, ACK", "grüße", ""):
        assert hubble_text.escape(text) == text
    assert hubble_text.escape("\x1b[2J\r") == "^[[2J\\r"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("StampMilli", "Nov  3 04:05:06.007"),
        ("YearMonthDay", "2026-11-03"),
        ("YearMonthDayHour", "2026-11-03T04Z"),
        ("RFC3339", "2026-11-03T04:05:06Z"),
        ("RFC3339Milli", "2026-11-03T04:05:06.007Z"),
        ("RFC3339Micro", "2026-11-03T04:05:06.00708Z"),
        ("RFC3339Nano", "2026-11-03T04:05:06.007080009Z"),
        ("RFC1123Z", "Tue, 03 Nov 2026 04:05:06 +0000"),
    ],
)
def test_times_are_written_as_hubble_does(form: str, expected: str) -> None:
    assert hubble_text.stamp(Timestamp(seconds=1793678706, nanos=7_080_009), form) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("1h43m", 6180), ("1.5h", 5400), ("250ms", 0.25), ("1m1.5s", 61.5), ("5", None), ("x", None)],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert hubble_request.duration(text) == seconds


def test_moments() -> None:
    assert hubble_request.moment("2026-11-03T04:05:06.007080009Z") == 1793678706_007080009
    assert hubble_request.moment("2026-11-03T05:05+01:00") == 1793678700_000000000
    assert hubble_request.moment("2026-11-03") == 1793664000_000000000
    with pytest.raises(UsageError):
        hubble_request.moment("yesterday")


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (2_000_000, "2ms"),
        (61_500_000_000, "1m1.5s"),
        (7_322_000_000_000, "2h2m2s"),
        (100_000_000_000, "1m40s"),
    ],
)
def test_uptimes_are_written_as_go_does(ns: int, text: str) -> None:
    assert hubble_status.duration(ns) == text


def filters(*flags: tuple[str, str]) -> tuple[list[Any], list[Any]]:
    made = FilterFlags()
    for name, value in flags:
        made.add(name, value)
    return made.whitelist(), made.blacklist()


def test_a_flag_about_either_end_makes_two_filters() -> None:
    white, black = filters(("pod", "a/b"), ("verdict", "DROPPED"), ("not", ""), ("to-port", "53"))
    assert white == [
        flow_pb2.FlowFilter(source_pod=["a/b"], verdict=[2]),
        flow_pb2.FlowFilter(destination_pod=["a/b"], verdict=[2]),
    ]
    assert black == [flow_pb2.FlowFilter(destination_port=["53"])]


@pytest.mark.parametrize(
    "flags",
    [
        [("not", ""), ("not", "")],
        [("not", "")],
        [("ip", "10.0.0.1"), ("pod", "a/b")],
        [("label", "a"), ("to-label", "b")],
        [("encrypted", ""), ("unencrypted", "")],
        [("verdict", "dropped")],
        [("drop-reason-desc", "NO")],
        [("tcp-flags", "SYN,XYZ")],
        [("type", "nonsense")],
        [("type", "trace:nonsense")],
        [("identity", "nobody")],
        [("traffic-direction", "up")],
        [("ip-trace-id", "0")],
        [("http-header", "novalue")],
        [("namespace", "a"), ("pod", "b/c")],
    ],
)
def test_flags_that_cannot_be(flags: list[tuple[str, str]]) -> None:
    with pytest.raises(UsageError):
        filters(*flags)


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("app=web", ("k8s:app=web",), True),
        ("app==web,tier!=db", ("k8s:app=web",), True),
        ("k8s:app in (web, api)", ("k8s:app=api",), True),
        ("app notin (web)", ("k8s:app=web",), False),
        ("!app", ("k8s:tier=x",), True),
        ("reserved:world", ("reserved:world",), True),
        ("cidr:app", ("k8s:app=web",), False),
        ("", (), True),
        ("app", (), False),
        ("app=", ("k8s:app=",), True),
    ],
)
def test_label_selectors(selector: str, labels: tuple[str, ...], matches: bool) -> None:
    assert labelselector.parse(selector).matches(labels) == matches


@pytest.mark.parametrize(
    "text", ["=a", "a in b", "a in (b", "a,,b", "a b", "a=b)", "a!", ",", "a>1", "in (a)"]
)
def test_selectors_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidObject):
        labelselector.parse(text)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("n1", "default/n1", True),
        ("n*", "other/node-2.example.com", True),
        ("default/", "default/n9", True),
        ("default/n1", "other/n1", False),
        ("N1.", "default/n1", True),
        ("n.", "default/nx", False),
    ],
)
def test_node_name_patterns(pattern: str, name: str, matches: bool) -> None:
    (found,) = patterns.node_names([pattern])
    assert found.matches(name) == matches


def test_patterns_say_what_the_regular_expression_of_them_would() -> None:
    """Every pattern and every name of a few characters."""
    asked = 0
    names = ["".join(each) for size in range(6) for each in itertools.product("a._", repeat=size)]
    for length in range(1, 5):
        for characters in itertools.product("a.*_", repeat=length):
            text = "".join(characters)
            try:
                (pattern,) = patterns.names([text])
            except InvalidObject:
                continue
            plain = re.escape(text.removesuffix(".")).replace(r"\*", "[-.0-9a-z]*")
            for name in names:
                asked += 1
                assert pattern.matches(name) == bool(re.fullmatch(plain, name)), (text, name)
    assert asked > 80_000


def test_a_pattern_of_many_stars_costs_what_it_is_long() -> None:
    """A regular expression would try each way to spread the name over the stars."""
    (pattern,) = patterns.names(["*a" * 200 + "c"])
    assert not pattern.matches("a" * 5000 + "b")
    assert pattern.matches("a" * 5000 + "c")


def test_the_command_line_does_not_import_what_it_need_not() -> None:
    import subprocess

    heavy = ("grpc", "numpy", "google.protobuf")
    code = f"import sys, podwire.cli.hubble; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
