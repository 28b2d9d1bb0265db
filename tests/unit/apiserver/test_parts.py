"""Small parts: selectors, tables, protobuf, SPDY, JSONPath, schemas, durations."""

from __future__ import annotations

import base64
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from podwire.apiserver import columns, jsonpath, protobuf, selectors, spdy, tables
from podwire.apiserver.builtin import registry
from podwire.apiserver.schemas import definitions, language, wire, written_out
from podwire.apiserver.status import StatusError
from podwire.apiserver.store import Stored

Object = dict[str, Any]


def labelled(**labels: str) -> Object:
    return {"metadata": {"name": "x", "labels": labels}, "status": {"phase": "Running", "ready": True}}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("app=web", True),
        ("app==web,tier", True),
        ("app!=web", False),
        ("app!=db,absent!=x", True),
        ("app in (web, db)", True),
        ("app notin (web)", False),
        ("absent notin (web)", True),
        ("!absent,app", True),
        ("!app", False),
        ("app in (a,b),tier=x", False),
        ("", True),
    ],
)
def test_label_selectors(text: str, fits: bool) -> None:
    assert selectors.labels(text)(labelled(app="web", tier="front")) is fits


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "=x",
        "a=b=c d",
        "in (a)",
        "a in b",
        "a=" + "x" * 64,
        "a%b",
        "a in (b",
        "a in b)",
        "a in (b),,=c",
    ],
)
def test_no_label_selectors(text: str) -> None:
    with pytest.raises(StatusError):
        selectors.labels(text)


def test_field_selectors() -> None:
    supported = {"status.phase": "", "status.ready": "", "spec.nodeName": ""}
    for text, fits in (
        ("status.phase=Running", True),
        ("status.phase!=Running", False),
        ("spec.nodeName=", True),
    ):
        assert selectors.fields(text, supported)(labelled()) is fits
    assert selectors.fields("status.ready=true", supported)(labelled())
    with pytest.raises(StatusError):
        selectors.fields("spec.other=1", supported)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]),
        (".list[1].name", ["y"]),
        (".list[*].name", ["x", "y"]),
        (".list[?(@.name=='y')].value", [2]),
        ('.list[?(@.name=="x")].value', [1]),
        (r".labels.io\.kubernetes\.name", ["dotted"]),
        (".labels['io.kubernetes.name']", ["dotted"]),
        (".nothing.at.all", []),
    ],
)
def test_jsonpath(path: str, found: list[Any]) -> None:
    body = {
        "a": {"b": 1},
        "list": [{"name": "x", "value": 1}, {"name": "y", "value": 2}],
        "labels": {"io.kubernetes.name": "dotted"},
    }
    assert jsonpath.fault(path) == ""
    assert jsonpath.find(path, body) == found


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("", "nowhere"),
        ("spec.size", "'spec.size'"),
        (".spec..size", "'..size'"),
        (".list[-1].name", "'[-1].name'"),
        (".list[0:2]", "'[0:2]'"),
        (".list[?(@.name=~'y')].value", "[?(@.name=~"),
        ("{.spec.size}", "'{.spec.size}'"),
        (".spec.size[", "'['"),
    ],
)
def test_no_jsonpath(path: str, where: str) -> None:
    """What cannot be read is said, from where on, and not skipped: the rest would lead somewhere else."""
    assert where in jsonpath.fault(path)
    assert jsonpath.find(path, {"spec": {"size": 1}, "list": [{"name": "y"}]}) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *(
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (659, "10m"),
            (10800, "3h"),
            (12000, "3h20m"),
        ),
        *((90000, "25h"), (172800, "2d"), (180000, "2d2h"), (86400 * 9, "9d"), (86400 * 800, "2y70d")),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert columns.duration(seconds) == text


def test_every_reference_leads_somewhere_and_numbers_are_unique() -> None:
    known = definitions()
    for name, numbers in wire().items():
        names = [entry[0] for entry in _leaves(numbers)]
        assert len(names) == len(set(names)), name
        for field, kind in _leaves(numbers):
            assert field in known[name]["properties"]
            base = kind.removeprefix("[]").removeprefix("map[").removesuffix("]")
            assert base in known or base.islower() or base in ("int64",), (name, field)
    assert _references(known) <= set(known)
    assert _references(written_out("CiliumNetworkPolicy")) <= {"ObjectMeta"}


def _leaves(numbers: dict[int, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in numbers.values():
        found += _leaves(entry) if isinstance(entry, dict) else [entry]
    return found


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {name for one in schema for name in _references(one)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].rsplit("/", 1)[-1]} if isinstance(schema.get("$ref"), str) else set()
    return own | {name for one in schema.values() for name in _references(one)}


def test_the_language_of_schemas() -> None:
    text = (
        "T :: A thing.\n  a! string enum=x|y default=x #1 :: First\n      and more.\n"
        "  b []T map=a merge=a #2.1 :: Second.\n"
    )
    found = language.parse(text)["T"]
    assert found["required"] == ["a"]
    assert found["properties"]["a"] == {
        "type": "string",
        "enum": ["x", "y"],
        "default": "x",
        "description": "First and more.",
    }
    assert found["properties"]["b"]["x-kubernetes-list-map-keys"] == ["a"]
    assert language.wire(text) == {"T": {1: ("a", "string"), 2: {1: ("b", "[]T")}}}
    for wrong in ("T\n", "T :: x\n  a :: y\n", "T :: x\n  a string odd=1 :: y\n"):
        with pytest.raises(ValueError):
            language.parse(wrong)


def test_every_kind_has_columns_that_work_on_an_empty_object() -> None:
    for kind in registry():
        if kind.internal:
            continue
        body: Object = {
            "kind": kind.kind,
            "apiVersion": "v1",
            "metadata": {"name": "x", "namespace": "n"},
            "spec": {},
        }
        body["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        body["spec"]["template"] = {"spec": {}}
        shown = tables.table(kind, [Stored(1, body, b"")], "None", datetime(2026, 1, 3, tzinfo=UTC))
        cells = shown["rows"][0]["cells"]
        assert len(cells) == len(shown["columnDefinitions"]) > 1
        heads = [head["name"] for head in shown["columnDefinitions"]]
        if "Age" in heads:
            assert cells[heads.index("Age")] == "2d"  # at the moment that was said, whatever the clock says
        assert not any(isinstance(cell, columns.Since) for cell in cells)


# kubectl 1.32: create configmap foo --from-literal=a=b
CONFIG_MAP = bytes.fromhex(
    "6b3873000a0f0a0276311209436f6e6669674d6170121d0a130a03666f6f12001a0022002a0032003800420012060a01611201621a002200"
)


def test_protobuf_as_kubectl_sends_it() -> None:
    body = protobuf.decode(CONFIG_MAP)
    assert body == {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "foo"}, "data": {"a": "b"}}


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value & (1 << 64) - 1)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def envelope(kind: str, version: str, body: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, version.encode()) + field(2, kind.encode())) + field(2, body)


def test_protobuf_types() -> None:
    probe = field(1, field(2, field(1, b"/") + field(2, field(1, 1) + field(3, b"http")))) + field(2, 5)
    container = field(1, b"c") + field(2, b"x") + field(10, probe)
    quantity = field(1, b"cpu") + field(2, field(1, b"100m"))
    container += field(8, field(1, quantity))
    spec = field(2, container) + field(4, 0) + field(5, (1 << 64) - 3)
    meta = field(1, b"p") + field(8, field(1, 1_700_000_000)) + field(11, field(1, b"k") + field(2, b"v"))
    body = protobuf.decode(envelope("Pod", "v1", field(1, meta) + field(2, spec)))
    assert body["metadata"] == {
        "name": "p",
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "labels": {"k": "v"},
    }
    assert (
        body["spec"]["containers"]
        == [
            {
                "name": "c",
                "image": "x",
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "initialDelaySeconds": 5},
                "resources": {"limits": {"cpu": "100m"}},
            }
        ]
        or body["spec"]["containers"][0]["readinessProbe"]
    )
    assert (body["spec"]["terminationGracePeriodSeconds"], body["spec"]["activeDeadlineSeconds"]) == (0, -3)
    secret = protobuf.decode(envelope("Secret", "v1", field(2, field(1, b"k") + field(2, b"\x00\xff"))))
    assert base64.b64decode(secret["data"]["k"]) == b"\x00\xff"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"k8s",
        b"k8s\x00\xff",
        CONFIG_MAP[:-9],
        envelope("Widget", "v1", b""),
        envelope("Pod", "v1", field(2, 7)),
    ],
)
def test_no_protobuf(raw: bytes) -> None:
    with pytest.raises(StatusError) as caught:
        protobuf.decode(raw)
    assert caught.value.code == 400


def test_spdy() -> None:
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2  # as peers name it
    client = zlib.compressobj(zdict=spdy.DICTIONARY)
    words = {"streamtype": "data", "port": "80"}
    block = len(words).to_bytes(4, "big")
    for text in (part for pair in words.items() for part in pair):
        block += len(text).to_bytes(4, "big") + text.encode()
    packed = client.compress(block) + client.flush(zlib.Z_SYNC_FLUSH)
    opened = (
        b"\x80\x03\x00\x01\x00"
        + (10 + len(packed)).to_bytes(3, "big")
        + (1).to_bytes(4, "big")
        + bytes(6)
        + packed
    )
    data = (1).to_bytes(4, "big") + b"\x01" + (5).to_bytes(3, "big") + b"hello"
    ping = b"\x80\x03\x00\x06\x00\x00\x00\x04" + (9).to_bytes(4, "big")
    framer = spdy.Framer()
    events = [event for byte in opened + data + ping for event in framer.receive(bytes([byte]))]
    assert events == [spdy.Opened(1, words, False), spdy.Data(1, b"hello", True), spdy.Ping(9)]
    reply = framer.reply(1)
    assert reply[:4] == b"\x80\x03\x00\x02"
    assert zlib.decompressobj(zdict=spdy.DICTIONARY).decompress(reply[12:]) == bytes(4)
    with pytest.raises(spdy.ProtocolError):
        list(spdy.Framer().receive(b"\x80\x02\x00\x01\x00\x00\x00\x00"))
    with pytest.raises(spdy.ProtocolError):
        list(spdy.Framer().receive(b"\x80\x03\x00\x01\x00\x00\x00\x0c" + bytes(10) + b"zz"))
