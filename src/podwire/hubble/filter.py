"""Which flows are asked for: Hubble's FlowFilter as operations on columns.

Of one filter all fields that are set must match, of the values of one field any; of the filters in
a whitelist any must match, of those in a blacklist none may. A wrong filter is refused with its
field, before anything is sent.

What asks for names is decided once per name and not once per flow: its answer is remembered by
the name's number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.api import flow_pb2
from podwire.base.errors import InvalidObject
from podwire.hubble import filter_absent as absent
from podwire.hubble import filter_fields as fields
from podwire.hubble.decode import Columns
from podwire.hubble.flows import Flows

Mask = NDArray[np.bool_]
Test = Callable[[Columns], Mask]
# A filter is asked of every flow, and each of its values of every name: a request must not take the
# time of all others.
MOST_FILTERS = 64
MOST_VALUES = 256


def compile_lists(whitelist: Iterable[Any], blacklist: Iterable[Any], flows: Flows) -> Test:
    """Columns → which rows pass. Raises InvalidObject with the path of the wrong field."""
    whitelist, blacklist = list(whitelist), list(blacklist)
    for path, wanted in (("whitelist", whitelist), ("blacklist", blacklist)):
        if len(wanted) > MOST_FILTERS:
            raise InvalidObject(path, f"has more than {MOST_FILTERS} filters")
    white = [_compile(each, f"whitelist[{i}]", flows) for i, each in enumerate(whitelist)]
    black = [_compile(each, f"blacklist[{i}]", flows) for i, each in enumerate(blacklist)]

    def test(columns: Columns) -> Mask:
        count = len(columns["time"])
        passed = _any(white, columns) if white else np.ones(count, dtype=bool)
        if black and passed.any():
            passed &= ~_any(black, columns)
        return passed

    return test


def _any(tests: list[Test], columns: Columns) -> Mask:
    found = tests[0](columns)
    for test in tests[1:]:
        found = found | test(columns)
    return found


def _compile(wanted: Any, path: str, flows: Flows) -> Test:
    tests = []
    for descriptor, value in wanted.ListFields():
        maker = FIELDS[descriptor.name]
        if descriptor.is_repeated and len(value) > MOST_VALUES:
            raise InvalidObject(f"{path}.{descriptor.name}", f"has more than {MOST_VALUES} values")
        try:
            tests.append(maker(value, wanted, flows))
        except InvalidObject as error:
            raise InvalidObject(f"{path}.{descriptor.name}", error.problem) from error

    def test(columns: Columns) -> Mask:
        passed = np.ones(len(columns["time"]), dtype=bool)
        for each in tests:
            passed &= each(columns)
            if not passed.any():
                break
        return passed

    return test


Maker = Callable[[Any, Any, Flows], Test]

FIELDS: dict[str, Maker] = {
    "uuid": fields.uuid,
    "source_ip": fields.address("source"),
    "destination_ip": fields.address("destination"),
    "source_ip_xlated": absent.no_address,
    "source_pod": fields.pod("source"),
    "destination_pod": fields.pod("destination"),
    "source_fqdn": absent.no_name,
    "destination_fqdn": absent.no_name,
    "source_label": fields.label("source"),
    "destination_label": fields.label("destination"),
    "source_service": fields.service("source"),
    "destination_service": fields.service("destination"),
    "source_workload": fields.workload("source"),
    "destination_workload": fields.workload("destination"),
    "source_cluster_name": fields.cluster("source"),
    "destination_cluster_name": fields.cluster("destination"),
    "source_identity": fields.number("source_identity"),
    "destination_identity": fields.number("destination_identity"),
    "source_port": fields.port("source_port"),
    "destination_port": fields.port("destination_port"),
    "traffic_direction": fields.number("direction"),
    "verdict": fields.number("verdict"),
    "drop_reason_desc": fields.drop_reason,
    "interface": fields.interface,
    "event_type": fields.event_type,
    "protocol": fields.protocol,
    "reply": fields.reply,
    "encrypted": fields.encrypted,
    "tcp_flags": fields.tcp_flags,
    "ip_version": fields.ip_version,
    "node_name": fields.node_name,
    "node_labels": fields.node_labels,
    "http_status_code": absent.http_status,
    "http_method": absent.http,
    "http_path": absent.http_pattern,
    "http_url": absent.http_pattern,
    "http_header": absent.http,
    "dns_query": absent.pattern,
    "trace_id": absent.never,
    "ip_trace_id": absent.never,
    "experimental": absent.experimental,
}
assert set(FIELDS) == {field.name for field in flow_pb2.FlowFilter.DESCRIPTOR.fields}
