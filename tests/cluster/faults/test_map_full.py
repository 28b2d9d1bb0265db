"""Maps that may not grow: what does not fit is refused and named, what was in force stays."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator

import pytest
from tests.cluster.faults.conftest import (
    Object,
    apply,
    configure,
    get,
    pod,
    podwire,
    policy,
    running,
    status,
    wait,
)

from podwire.sandbox import view
from podwire.testing.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
MOST = 64

SERVER = {"matchLabels": {"app": "server"}}
ALLOWED = policy(
    "clients",
    endpointSelector=SERVER,
    ingress=[
        {"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": [{"ports": [{"port": "80"}]}]}
    ],
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server, a client that a policy allows, and a stranger; maps of 64 entries that may not grow."""
    with running(tmp_path_factory.mktemp("lab"), "nodes: 1\n") as cluster:
        # Maps that are bigger than the configuration says are kept: the next agent is to make its own.
        shutil.rmtree(view.open_sandbox(cluster.name)[0].node_bpf("n1") / "maps-1")
        configure(
            cluster,
            policy_map_max=MOST,
            policy_peers_max=MOST,
            ipcache_max=MOST,
            lb_map_max=MOST,
            map_growth_max=MOST,
        )
        asyncio.run(cluster.apply(pod("server", image="web"), pod("client"), pod("stranger"), ALLOWED))
        yield cluster


def as_before(lab: Cluster) -> None:
    """What was allowed is allowed, what was denied is denied: tried with connections."""
    allowed = asyncio.run(lab["client"].reach(lab["server"], port=80))
    assert allowed.reached, allowed
    denied = asyncio.run(lab["stranger"].reach(lab["server"], port=80, timeout=0.5))
    assert not denied.reached, denied


def metric(lab: Cluster, name: str, table: str) -> float:
    """The sample of `name` for a map; 0 if there is none."""
    found = json.loads(podwire("metrics", "list", "--sandbox", lab.name, "-o", "json").stdout)
    return sum(one["value"] for one in found if one["name"] == name and one["labels"]["map"] == table)


def condition(lab: Cluster, kind: str) -> Object:
    """Of the node."""
    found = get(lab, "v1", "Node", "n1", "")["status"]["conditions"]
    return next((one for one in found if one["type"] == kind), {})


def full(lab: Cluster, component: str = "datapath") -> str:
    """What the agent says of a component that is not well; empty if it is."""
    found = status(lab)["podwire"]["components"][component]
    return "" if found["state"] == "Ok" else str(found["msg"])


def remove(lab: Cluster, *objects: Object) -> None:
    asyncio.run(lab.delete(*objects))
    wait(lambda: not full(lab) and not full(lab, "policy"), "the agent to be well again")


def test_a_policy_that_does_not_fit_is_not_switched_to(lab: Cluster) -> None:
    as_before(lab)
    ports = [[{"ports": [{"port": str(1000 + 40 * n + 2 * i)} for i in range(40)]}] for n in range(2)]
    big = policy(
        "big",
        endpointSelector=SERVER,
        ingress=[{"fromEndpoints": [{"matchLabels": {"app": "stranger"}}], "toPorts": one} for one in ports],
    )
    also = policy("also", endpointSelector=SERVER, ingress=[{"fromEndpoints": [{}]}])
    apply(lab, big, also)
    told = wait(lambda: full(lab), "the agent to say so")
    full_at = f"map podwire_policy is full at {MOST} entries"
    assert f"{full_at} (raise policy-map-max or map-growth-max and restart the agent)" in told
    assert told.endswith("; what was in force stays")
    assert "default/big" in full(lab, "policy")
    as_before(lab)  # `also` came with `big`: neither is there in part
    shown = podwire("status", "--sandbox", lab.name)
    assert shown.returncode == 1 and "map podwire_policy is full" in shown.stdout
    assert metric(lab, "podwire_bpf_map_pressure", "podwire_policy") > 0.9
    assert metric(lab, "podwire_bpf_map_unwritten", "podwire_policy") > 0
    told = wait(lambda: condition(lab, "podwire.io/PoliciesEnforced"), "the condition of the node")
    assert told["status"] == "False" and told["reason"] == "NotWritten"
    for name in ("big", "also"):  # named, and valid all the same: other nodes may have room
        assert f"CiliumNetworkPolicy default/{name}: " in told["message"]
        policy_status = get(lab, "cilium.io/v2", "CiliumNetworkPolicy", name)["status"]
        assert [(one["type"], one["status"]) for one in policy_status["conditions"]] == [("Valid", "True")]
    assert "map podwire_policy is full" in told["message"]

    def endpoint() -> Object:
        found = get(lab, "cilium.io/v2", "CiliumEndpoint", "server")["status"]
        return found if found.get("log") else {}

    found = wait(endpoint, "the endpoint's status")
    assert found["state"] == "regenerating"
    assert "map podwire_policy is full" in found["log"][0]["message"]
    assert condition(lab, "Ready")["status"] == "True"
    remove(lab, big)
    as_now = wait(
        lambda: condition(lab, "podwire.io/PoliciesEnforced")["status"] == "True", "the condition of the node"
    )
    assert as_now and asyncio.run(lab["stranger"].can_reach(lab["server"], port=80))
    remove(lab, also)
    as_before(lab)
    assert metric(lab, "podwire_bpf_map_unwritten", "podwire_policy") == 0


def test_addresses_that_do_not_fit(lab: Cluster) -> None:
    many = policy(
        "many",
        endpointSelector=SERVER,
        ingress=[{"fromCIDR": [f"198.51.{n}.0/24" for n in range(MOST + 10)]}],
    )
    apply(lab, many)
    wait(lambda: "map podwire_ipcache_prefixes is full" in full(lab), "the agent to say so")
    as_before(lab)
    assert metric(lab, "podwire_bpf_map_unwritten", "podwire_ipcache_prefixes") > 0
    remove(lab, many)
    as_before(lab)


def test_a_policy_whose_peers_addresses_do_not_fit_says_so(lab: Cluster) -> None:
    """Room for its rows, none for the addresses: they would be taken for the rest of the world."""
    denied = policy(
        "denied",
        endpointSelector={"matchLabels": {"app": "stranger"}},
        egressDeny=[{"toCIDR": [f"198.52.{n}.0/24" for n in range(MOST - 14)]}],
        egress=[{"toEntities": ["all"]}],
    )
    more = policy(
        "more",
        endpointSelector={"matchLabels": {"app": "nobody"}},
        ingress=[{"fromCIDR": [f"198.53.{n}.0/24" for n in range(20)]}],
    )
    asyncio.run(lab.apply(more))
    apply(lab, denied)
    wait(lambda: "map podwire_ipcache_prefixes is full" in full(lab), "the agent to say so")

    def named() -> bool:
        found = condition(lab, "podwire.io/PoliciesEnforced")
        return found["status"] == "False" and "default/denied: " in found["message"]

    wait(named, "the condition of the node")
    assert "podwire_ipcache_prefixes is full" in condition(lab, "podwire.io/PoliciesEnforced")["message"]
    as_before(lab)
    remove(lab, denied, more)
    as_before(lab)


def test_services_that_do_not_fit(lab: Cluster) -> None:
    def service(name: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80}]},
        }

    first, more = service("first"), [service(f"more{n}") for n in range(MOST)]
    asyncio.run(lab.apply(first))
    address = get(lab, "v1", "Service", "first")["spec"]["clusterIP"]
    wait(lambda: asyncio.run(lab["client"].can_reach(address, port=80)), "the service")
    apply(lab, *more)
    told = wait(lambda: full(lab), "the agent to say so")
    assert f"is full at {MOST} entries (raise lb-map-max" in told
    assert asyncio.run(lab["client"].can_reach(address, port=80))
    as_before(lab)
    remove(lab, *more)
    assert asyncio.run(lab["client"].can_reach(address, port=80))
    remove(lab, first)


def test_an_agent_whose_maps_were_too_small_catches_up_with_more(lab: Cluster) -> None:
    wide = policy(
        "wide",
        endpointSelector=SERVER,
        ingress=[
            {
                "fromEndpoints": [{"matchLabels": {"app": "stranger"}}],
                "toPorts": [{"ports": [{"port": "80"}, *({"port": str(1000 + 2 * n)} for n in range(39))]}],
            },
            {"fromCIDR": [f"198.51.{n}.0/24" for n in range(MOST + 10)]},
        ],
    )
    apply(lab, wide)
    wait(lambda: full(lab), "the agent to say so")
    configure(lab, map_growth_max=4 * MOST)
    assert not full(lab)
    wait(lambda: asyncio.run(lab["stranger"].can_reach(lab["server"], port=80)), "the policy in force")
    remove(lab, wide)
    as_before(lab)
