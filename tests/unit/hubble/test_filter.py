"""Filters on columns select what a reading of Hubble's rules, one message at a time, selects."""

from __future__ import annotations

import ipaddress
import os
import random
import re
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from podwire.api import flow_pb2 as f
from podwire.base.errors import InvalidObject
from podwire.hubble import filter as filters
from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.testing import flows

ADDRESSES = ["10.0.1.1", "10.0.1.2", "10.0.2.2", "10.0.1.4", "198.51.100.7", flows.SERVICE]
ADDRESSES6 = ["fd00::1:1", "fd00::1:2", "2001:db8::7", "::1"]
POOL: dict[str, list[Any]] = {
    "ip": [*ADDRESSES, *ADDRESSES6, "10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/16", "198.51.100.4/30"],
    "pod": ["prod/", "prod/front", "prod/backend-7d4b9-x", "/unauth", "frontend", "other/"],
    "label": [
        "app=backend",
        "app!=backend",
        "k8s:app in (frontend,unauthorized)",
        "reserved:world",
        "!app",
        "app,!x",
    ],
    "service": ["prod/", "prod/back", "backend", "other/backend"],
    "workload": [
        f.Workload(name="backend"),
        f.Workload(kind="Deployment"),
        f.Workload(kind="Pod", name="backend"),
    ],
    "cluster_name": ["default", "other"],
    "identity": [0, 1, 2, 1001, 1002, 1003],
    "port": ["0", "53", "80", "8080", "40000"],
    "verdict": [1, 2, 5, 6, 7],
    "drop_reason_desc": [133, 181, 203],
    "event_type": [
        f.EventTypeFilter(type=1),
        f.EventTypeFilter(type=4, match_sub_type=True),
        f.EventTypeFilter(match_sub_type=True, sub_type=4),
        f.EventTypeFilter(type=5),
        f.EventTypeFilter(type=7, match_sub_type=True, sub_type=2),
        f.EventTypeFilter(type=129),
    ],
    "protocol": ["tcp", "UDP", "icmp", "icmpv6", "ICMPv4", "sctp", "http"],
    "reply": [True, False],
    "encrypted": [True, False],
    "traffic_direction": [0, 1, 2],
    "tcp_flags": [f.TCPFlags(SYN=True), f.TCPFlags(SYN=True, ACK=True), f.TCPFlags(), f.TCPFlags(RST=True)],
    "ip_version": [0, 1, 2],
    "node_name": ["n1", "default/n*", "*/n2", "other/"],
    "node_labels": ["role=worker", "role notin (worker)", "missing"],
    "interface": [
        f.NetworkInterface(name="lo"),
        f.NetworkInterface(index=1),
        f.NetworkInterface(name="eth9"),
    ],
    "dns_query": ["example"],
    "trace_id": ["1"],
}
SIDED = ("ip", "pod", "label", "service", "workload", "cluster_name", "identity", "port")


def random_event(chance: random.Random) -> flows.Records:
    six = chance.random() < 0.3
    pool = ADDRESSES6 if six else ADDRESSES
    kind = chance.choice([1, 4, 4, 4, 5, 7])
    fields: dict[str, Any] = {
        "kind": kind,
        "point": chance.choice([1, 2] if kind == 5 else [0, 1, 2, 4, 5]),
        "reason": chance.choice([133, 181, 203, 222] if kind in (1, 5) else [0, 1, 2, 3]),
        "protocol": chance.choice([6, 6, 17, 1, 58, 132, 47]),
        "source": chance.choice(pool),
        "destination": chance.choice(pool),
        "source_port": chance.choice([0, 53, 80, 8080, 40000]),
        "destination_port": chance.choice([0, 53, 80, 8080, 40000]),
        "source_identity": chance.choice([0, 1, 2, 1001, 1002, 1003]),
        "destination_identity": chance.choice([0, 1, 2, 1001, 1002, 1003]),
        "source_endpoint": chance.choice([0, 0, 11, 12]),
        "destination_endpoint": chance.choice([0, 0, 12, 14]),
        "direction": chance.choice([0, 1, 2]),
        "tcp_flags": chance.choice([0, 2, 16, 18, 4]),
        "flags": chance.choice([0, 2, 6]) | (1 if six else 0) | (8 if chance.random() < 0.2 else 0),
        "device": chance.choice([0, 0, 1]),
        "rule": chance.choice([0, flows.ALLOWED, flows.DENIED]),
        "proxy_port": chance.choice([0, 0, 0, 9]),
    }
    if chance.random() < 0.05:
        fields |= {"source": "", "destination": "", "flags": 0}
    return flows.event(**fields)


def random_filter(chance: random.Random) -> Any:
    wanted = f.FlowFilter()
    for name in chance.sample(list(POOL), chance.choice([0, 1, 1, 2, 3])):
        values = chance.choices(POOL[name], k=chance.choice([1, 1, 2]))
        field = f"{chance.choice(['source', 'destination'])}_{name}" if name in SIDED else name
        getattr(wanted, field).extend(values)
    return wanted


# --- the reference: Hubble's rules, read one field and one message at a time ---------------------------


def selects(wanted: Any, flow: Any) -> bool:
    return all(any(one(field.name, value, flow) for value in values) for field, values in wanted.ListFields())


def one(name: str, value: Any, flow: Any) -> bool:
    side, _, rest = name.partition("_")
    if side in ("source", "destination"):
        return one_sided(rest, value, flow, side)
    protocol = flow.l4.WhichOneof("protocol")
    match name:
        case "verdict" | "traffic_direction":
            return getattr(flow, name) == value
        case "drop_reason_desc":
            return flow.verdict == f.DROPPED and flow.drop_reason_desc == value
        case "event_type":
            return (value.type in (0, flow.event_type.type)) and (
                not value.match_sub_type or value.sub_type == flow.event_type.sub_type
            )
        case "protocol":
            asked = value.lower()
            return protocol is not None and (
                protocol.lower() == asked or (asked == "icmp" and protocol.startswith("ICMP"))
            )
        case "reply":
            if not flow.HasField("is_reply") and flow.verdict != f.DROPPED:
                return False
            return flow.is_reply.value == value
        case "encrypted":
            return flow.IP.encrypted == value
        case "tcp_flags":
            if not flow.l4.TCP.HasField("flags"):
                return False
            return all(getattr(flow.l4.TCP.flags, each.name) for each, _ in value.ListFields())
        case "ip_version":
            return flow.IP.ipVersion == value
        case "node_name":
            cluster, _, node = value.rpartition("/")
            return fnmatchcase("default", cluster or "*") and fnmatchcase("n1", node or "*")
        case "node_labels":
            return has_labels(value, list(flow.node_labels))
        case "interface":
            mine = flow.interface
            return (
                flow.HasField("interface")
                and value.index in (0, mine.index)
                and value.name in ("", mine.name)
            )
        case _:
            return False


def one_sided(name: str, value: Any, flow: Any, side: str) -> bool:
    endpoint = getattr(flow, side)
    match name:
        case "ip":
            address = getattr(flow.IP, side)
            return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(value)
        case "pod":
            return has_name(value, endpoint.namespace, endpoint.pod_name)
        case "service":
            service = getattr(flow, f"{side}_service")
            return has_name(value, service.namespace, service.name)
        case "label":
            return has_labels(value, list(endpoint.labels))
        case "workload":
            return any(value.name in ("", w.name) and value.kind in ("", w.kind) for w in endpoint.workloads)
        case "cluster_name":
            return endpoint.cluster_name == value
        case "identity":
            return endpoint.identity == value
        case "port":
            protocol = flow.l4.WhichOneof("protocol")
            if protocol not in ("TCP", "UDP", "SCTP"):
                return False
            return getattr(getattr(flow.l4, protocol), f"{side}_port") == int(value)
        case _:
            return False


def has_name(value: str, namespace: str, name: str) -> bool:
    wanted, slash, prefix = value.partition("/")
    if not slash:
        wanted, prefix = "default", value
    return bool(namespace or name) and wanted in ("", namespace) and name.startswith(prefix)


def has_labels(selector: str, labels: list[str]) -> bool:
    def values(key: str) -> list[str]:
        source, colon, name = key.partition(":")
        found = []
        for label in labels:
            of, _, rest = label.partition(":") if ":" in label else ("", "", label)
            word, _, value = rest.partition("=")
            if word == (name if colon else key) and (not colon or of == source):
                found.append(value)
        return found

    for part in re.split(r",(?![^(]*\))", selector):
        if found := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", part):
            if any(v in found[3].split(",") for v in values(found[1])) != (found[2] == "in"):
                return False
        elif "!=" in part:
            key, value = part.split("!=")
            if value in values(key):
                return False
        elif "=" in part:
            key, value = part.split("=")
            if value not in values(key):
                return False
        elif bool(values(part.lstrip("!"))) == part.startswith("!"):
            return False
    return True


# --- tests ---------------------------------------------------------------------------------------------


def matching(pipeline: Pipeline, whitelist: list[Any], blacklist: list[Any]) -> list[int]:
    test = filters.compile_lists(whitelist, blacklist, pipeline.flows)
    store = pipeline.store
    rows: list[int] = []
    for start, columns in store.chunks(store.first, store.end):
        rows += (start + np.flatnonzero(test(columns))).tolist()
    return rows


def test_columns_select_what_messages_select(make) -> None:
    seed = int(os.environ.get("PODWIRE_SEED", random.randrange(1 << 32)))
    print(f"PODWIRE_SEED={seed}")
    chance = random.Random(seed)
    pipeline, ring = make(capacity=256)
    ring.emit(flows.joined([random_event(chance) for _ in range(350)]))  # more than fit: it wraps
    pipeline.drain()
    rows = np.arange(pipeline.store.first, pipeline.store.end)
    messages = {
        row: each.flow
        for row, each in zip(rows.tolist(), Messages(pipeline.flows).responses(rows), strict=True)
    }
    hits = 0
    for _ in range(150):
        white = [random_filter(chance) for _ in range(chance.choice([0, 1, 1, 2]))]
        black = [random_filter(chance) for _ in range(chance.choice([0, 0, 1]))]
        expected = [
            row
            for row, flow in messages.items()
            if (not white or any(selects(each, flow) for each in white))
            and not any(selects(each, flow) for each in black)
        ]
        assert matching(pipeline, white, black) == expected, (white, black)
        hits += 0 < len(expected) < len(messages)
    assert hits > 25  # the filters tell something apart


def test_one_flow_by_its_uuid(sampled: Pipeline) -> None:
    uuids = [Messages(sampled.flows).flow(row).uuid for row in range(sampled.store.end)]
    assert len(set(uuids)) == len(uuids)
    assert matching(sampled, [f.FlowFilter(uuid=[uuids[3], uuids[5], "nonsense"])], []) == [3, 5]
    other = f.FlowFilter(uuid=["00000000-0000-8000-8000-000000000001"])
    assert matching(sampled, [other], []) == []
    assert sampled.flows.find(uuids[4]) == 4
    assert sampled.flows.find(uuids[4].upper()) is None
    assert sampled.flows.find("") is None


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"source_ip": ["10.0.0.1", "10.0.0.300"]}, "source_ip"),
        ({"destination_ip": ["10.0.0.0/33"]}, "destination_ip"),
        ({"source_ip_xlated": ["x"]}, "source_ip_xlated"),
        ({"source_port": ["65536"]}, "source_port"),
        ({"destination_port": ["http"]}, "destination_port"),
        ({"destination_port": ["9" * 5000]}, "destination_port"),
        ({"destination_port": ["٣"]}, "destination_port"),
        ({"source_identity": range(300)}, "source_identity"),
        ({"dns_query": ["(" * 900]}, "dns_query"),
        ({"http_url": ["a" * 1001]}, "http_url"),
        ({"protocol": ["tcp", "quic"]}, "protocol"),
        ({"source_pod": [""]}, "source_pod"),
        ({"destination_service": [""]}, "destination_service"),
        ({"source_cluster_name": [""]}, "source_cluster_name"),
        ({"source_label": ["a in (b"]}, "source_label"),
        ({"destination_label": ["a=b c"]}, "destination_label"),
        ({"node_labels": ["=x"]}, "node_labels"),
        ({"source_label": ["a>3"]}, "source_label"),
        ({"source_fqdn": ["a..b$"]}, "source_fqdn"),
        ({"destination_fqdn": [""]}, "destination_fqdn"),
        ({"node_name": ["a/b/c"]}, "node_name"),
        ({"http_status_code": ["600"]}, "http_status_code"),
        ({"http_path": ["("]}, "http_path"),
        ({"http_method": ["GET"], "event_type": [f.EventTypeFilter(type=1)]}, "http_method"),
        ({"dns_query": ["("]}, "dns_query"),
        ({"experimental": f.FlowFilter.Experimental(cel_expression=["true"])}, "experimental"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(sampled: Pipeline, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        filters.compile_lists([f.FlowFilter()], [f.FlowFilter(), f.FlowFilter(**fields)], sampled.flows)
    assert caught.value.path == f"blacklist[1].{path}"
    assert caught.value.problem


def test_requests_that_would_take_the_time_of_all_others_are_refused(sampled: Pipeline) -> None:
    many = [f.FlowFilter()] * 65
    for white, black, path in ((many, [], "whitelist"), ([], many, "blacklist")):
        with pytest.raises(InvalidObject) as caught:
            filters.compile_lists(white, black, sampled.flows)
        assert caught.value.path == path
    mask = FieldMask(paths=[f"source.x{number}" for number in range(300)])
    with pytest.raises(InvalidObject, match="256 paths"):
        Messages(sampled.flows, mask)
    long = "!" * 100_000  # read in one go, whatever is wrong with it
    with pytest.raises(InvalidObject):
        filters.compile_lists([f.FlowFilter(source_label=[long])], [], sampled.flows)


@pytest.mark.parametrize("field", ["source_fqdn", "http_url", "trace_id", "http_header", "ip_trace_id"])
def test_what_stored_flows_do_not_have_matches_nothing(sampled: Pipeline, field: str) -> None:
    value: Any = {"ip_trace_id": 7, "http_header": f.HTTPHeader(key="a", value="b")}.get(field, "a")
    assert matching(sampled, [f.FlowFilter(**{field: [value]})], []) == []
    assert len(matching(sampled, [], [f.FlowFilter(**{field: [value]})])) == sampled.store.end


def test_a_filter_survives_names_that_change_their_number(make) -> None:
    pipeline, ring = make(capacity=1024)
    ring.emit(flows.sample())
    pipeline.drain()
    test = filters.compile_lists([f.FlowFilter(source_pod=["prod/frontend"])], [], pipeline.flows)
    ((_, columns),) = pipeline.store.chunks(0, pipeline.store.end)
    before = test(columns)
    pipeline.flows.names.sweep()
    assert (test(columns) == before).all()
    assert before.any()
