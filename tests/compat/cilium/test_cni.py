"""cilium-cni, unmodified, attaches a pod by podwire's agent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.compat

Cni = Callable[..., tuple[int, Any]]


def shown(namespace: str, *what: str) -> Any:
    done = subprocess.run(["ip", "-n", namespace, "-json", *what], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def test_a_pod_is_attached_checked_and_detached(cni: Cni, node: Any, namespaces: tuple[str, str]) -> None:
    inside, pod = namespaces
    assert cni("STATUS")[0] == 0
    code, result = cni("ADD")
    assert code == 0, result
    given = {one["address"] for one in result["ips"]}
    assert given == {f"{node_address}/{32 if '.' in node_address else 128}" for node_address in owned(node)}

    (device,) = (one for one in shown(pod, "addr") if one["ifname"] == "eth0")
    assert {one["local"] for one in device["addr_info"] if one["scope"] == "global"} == set(owned(node))
    (row,) = node.tables.endpoints.by("pod", ("prod", "new"))
    assert device["address"] == row.mac, "the pod's device has the address the agent told"
    gateways = {one.get("gateway") for one in shown(pod, "route")}
    assert "10.0.1.254" in gateways

    code, result = cni("CHECK", result)
    assert code == 0, result
    assert cni("DEL")[0] == 0
    assert not node.tables.endpoints.by("pod", ("prod", "new"))
    assert all(one["ifname"] == "lo" for one in shown(inside, "link"))
    assert cni("DEL")[0] == 0, "a second time is no error"


def owned(node: Any) -> list[str]:
    return [address for address, owner in node.owners.items() if owner == "prod/new"]
