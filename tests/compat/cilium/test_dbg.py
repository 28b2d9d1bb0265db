"""cilium-dbg, unmodified, reads podwire's agent: lists, details and the whole verbose status."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.compat

Dbg = Callable[..., str]


def test_status_with_all_details(dbg: Dbg) -> None:
    output = dbg("status", "--verbose")
    for text in ("KubeProxyReplacement Details:", "Controller Status:", "10.0.1.1 (prod/web-1)", "BPF Maps:"):
        assert text in output
    assert json.loads(dbg("status", "-o", "json"))["cilium"]["state"] == "Ok"
    assert dbg("status", "--brief").strip() == "OK"


def test_endpoints(dbg: Dbg) -> None:
    output = dbg("endpoint", "list")
    assert "Enabled" in output and "k8s:app=web" in output and "10.0.1.1" in output and "ready" in output
    (shape,) = json.loads(dbg("endpoint", "get", "5"))
    assert shape["status"]["policy"]["realized"]["policy-revision"] == 3
    assert json.loads(dbg("endpoint", "get", "pod-name:prod:web-1"))[0]["id"] == 5
    assert "OK" in dbg("endpoint", "health", "5")
    assert "ready" in dbg("endpoint", "log", "5")
    assert "k8s:app=web" in dbg("endpoint", "labels", "5")


def test_identities(dbg: Dbg) -> None:
    assert "reserved:host" in dbg("identity", "list")
    assert "k8s:app=web" in dbg("identity", "get", "1234")


def test_services(dbg: Dbg) -> None:
    output = dbg("service", "list")
    assert "10.96.0.1:80" in output and "ClusterIP" in output and "10.0.1.1:8080" in output


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("ip", "list"), "10.0.1.1/32"),
        (("node", "list"), "default/n1"),
        (("policy", "get"), "allow-web"),
        (("policy", "selectors"), "app=web"),
        (("map", "list"), "ipcache"),
        (("version",), "podwire"),
        (("config",), "PolicyEnforcement"),
        (("encrypt", "status"), "Disabled"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_others(dbg: Dbg, command: tuple[str, ...], text: str) -> None:
    assert text in dbg(*command)


def test_policy_revision(dbg: Dbg) -> None:
    """What the connectivity test waits by."""
    before = int(dbg("policy", "get", "-o", "jsonpath={.revision}"))
    assert before == 3  # two policies after the first
