"""Services: families, addresses and node ports; slices and endpoints behind them."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.status import StatusError

Object = dict[str, Any]


def service(name: str = "s", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec}}


def pod(name: str, node: str = "n1", **more: Any) -> Object:
    ports = [{"name": "http", "containerPort": 8080}]
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "x:1", "ports": ports}], **more}
    return {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}


def test_an_address_is_given_and_kept(world: Any) -> None:
    made = world.create("services", service())
    assert made["spec"]["clusterIP"] == "10.96.0.11"
    assert (made["spec"]["ipFamilies"], made["spec"]["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    sent = service(ports=[{"port": 81}])
    changed = world.objects.update(world.kind("services"), "default", "s", sent).stored.object
    assert changed["spec"]["clusterIP"] == "10.96.0.11"
    with pytest.raises(StatusError, match="may not change once set"):
        world.objects.update(world.kind("services"), "default", "s", service(clusterIP="10.96.0.99"))


def test_both_families(world: Any) -> None:
    made = world.create("services", service(ipFamilyPolicy="PreferDualStack"))["spec"]
    assert made["ipFamilies"] == ["IPv4", "IPv6"]
    assert made["clusterIPs"][1].startswith("fd00::")
    six = world.create("services", service("six", ipFamilies=["IPv6"]))["spec"]
    assert six["clusterIP"].startswith("fd00::") and six["clusterIPs"] == [six["clusterIP"]]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"clusterIP": "10.97.0.1"}, "spec.clusterIPs[0]"),
        ({"clusterIP": "10.96.0.1"}, "spec.clusterIPs[0]"),
        ({"clusterIP": "web"}, "spec.clusterIPs[0]"),
        ({"ports": []}, "spec.ports"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, "spec.ports[1]"),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, "spec.ports[0].nodePort"),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}, "spec.ports[0].nodePort"),
        ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIPs[0]"),
        ({"type": "ExternalName"}, "spec.externalName"),
        ({"type": "Magic"}, "spec.type"),
        ({"ipFamilies": ["IPv4", "IPv4"]}, "spec.ipFamilies"),
    ],
)
def test_services_name_what_is_wrong(world: Any, spec: Object, path: str) -> None:
    with pytest.raises(StatusError) as caught:
        world.create("services", service(**spec))
    assert caught.value.code == 422 and caught.value.details is not None
    assert path in [cause["field"] for cause in caught.value.details["causes"]]
    assert not world.has("services", "s")


def test_node_ports(world: Any) -> None:
    ports = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]
    made = world.create("services", service(type="NodePort", ports=ports))["spec"]["ports"]
    assert made[0]["nodePort"] != made[1]["nodePort"]
    taken = [{"port": 80, "nodePort": made[0]["nodePort"]}]
    with pytest.raises(StatusError, match="already allocated"):
        world.create("services", service("t", type="NodePort", ports=taken))
    back = world.objects.update(world.kind("services"), "default", "s", service(ports=ports)).stored.object
    assert all("nodePort" not in port for port in back["spec"]["ports"])
    world.create("services", service("t", type="NodePort", ports=taken))


def test_addresses_come_back_and_run_out(world: Any) -> None:
    made = []
    with pytest.raises(StatusError, match="no IPv4 address is free"):
        for number in range(300):
            made.append(world.create("services", service(f"s{number}"))["spec"]["clusterIP"])
    assert len(set(made)) == len(made) > 230
    world.objects.delete(world.kind("services"), "default", "s7")
    assert world.create("services", service("again"))["spec"]["clusterIP"] == made[7]


def slices(world: Any, name: str = "s") -> list[Object]:
    found = world.all("endpointslices", "default")
    return [one for one in found if one["metadata"]["labels"].get("kubernetes.io/service-name") == name]


def test_slices_follow_pods(world: Any) -> None:
    world.create("services", service(ports=[{"port": 80, "targetPort": "http", "name": "web"}]))
    world.create("pods", pod("a"))
    world.create("pods", pod("b", "n2"))
    world.settle()
    assert [one.get("endpoints") for one in slices(world)] == [[]]
    world.run("a", "10.1.0.1")
    world.run("b", "10.1.0.2", ready=False)
    world.settle()
    (only,) = slices(world)
    assert only["ports"] == [{"name": "web", "protocol": "TCP", "port": 8080}]
    shown = {
        one["targetRef"]["name"]: (one["addresses"], one["conditions"]["ready"]) for one in only["endpoints"]
    }
    assert shown == {"a": (["10.1.0.1"], True), "b": (["10.1.0.2"], False)}
    assert {one["nodeName"] for one in only["endpoints"]} == {"n1", "n2"}
    (subset,) = world.get("endpoints", "s")["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == ["10.1.0.1"]
    assert [one["ip"] for one in subset["notReadyAddresses"]] == ["10.1.0.2"]
    world.objects.delete(world.kind("pods"), "default", "a")
    world.settle()
    ending = next(one for one in slices(world)[0]["endpoints"] if one["targetRef"]["name"] == "a")
    assert ending["conditions"] == {"ready": False, "serving": True, "terminating": True}
    world.objects.delete(world.kind("services"), "default", "s")
    world.settle()
    assert slices(world) == [] and not world.has("endpoints", "s")


def test_a_slice_a_family(world: Any) -> None:
    world.create("services", service(ipFamilyPolicy="RequireDualStack"))
    world.create("pods", pod("a"))
    world.run("a", "10.1.0.1")
    world.settle()
    found = {one["addressType"]: one["endpoints"][0]["addresses"] for one in slices(world)}
    assert found == {"IPv4": ["10.1.0.1"], "IPv6": ["fd01::1"]}


def test_headless_and_not_ready(world: Any) -> None:
    world.create("services", service(clusterIP="None", publishNotReadyAddresses=True))
    world.create("pods", pod("a", hostname="h", subdomain="s"))
    world.run("a", "10.1.0.1", ready=False)
    world.settle()
    (only,) = slices(world)
    assert only["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert (only["endpoints"][0]["hostname"], only["endpoints"][0]["conditions"]["ready"]) == ("h", True)


def test_a_hundred_endpoints_a_slice_and_few_writes(world: Any) -> None:
    world.create("services", service())
    for number in range(250):
        world.create("pods", pod(f"p{number:03}"))
        world.run(f"p{number:03}", f"10.1.{number // 200}.{number % 200 + 1}")
    world.settle()
    assert sorted(len(one["endpoints"]) for one in slices(world)) == [50, 100, 100]
    before = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in slices(world)}
    world.run("p042", "10.1.0.43", ready=False)
    world.settle()
    after = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in slices(world)}
    assert sum(before[name] != after[name] for name in before) == 1


def test_endpoints_made_by_hand_are_mirrored(world: Any) -> None:
    subset = {"addresses": [{"ip": "192.0.2.7"}, {"ip": "fd00::7"}], "ports": [{"port": 5432}]}
    body = {"metadata": {"name": "db"}, "subsets": [{**subset, "notReadyAddresses": [{"ip": "192.0.2.8"}]}]}
    world.create("endpoints", body)
    world.settle()
    world.create("services", {"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}})
    world.settle()
    shown = {
        one["addressType"]: [(each["addresses"][0], each["conditions"]["ready"]) for each in one["endpoints"]]
        for one in slices(world, "db")
    }
    assert shown == {"IPv4": [("192.0.2.7", True), ("192.0.2.8", False)], "IPv6": [("fd00::7", True)]}
    changed = {**body, "subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 5433}]}]}
    world.objects.update(world.kind("endpoints"), "default", "db", changed)
    world.settle()
    (only,) = slices(world, "db")
    assert (only["endpoints"][0]["addresses"], only["ports"][0]["port"]) == (["192.0.2.9"], 5433)
    revision = world.store.revision
    world.settle()
    assert world.store.revision == revision
    world.objects.delete(world.kind("services"), "default", "db")
    world.settle()
    assert slices(world, "db") == []
