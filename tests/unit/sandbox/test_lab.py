"""lab.yaml: what is valid, what is refused and where, and the addresses a lab gets."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.base.errors import ConfigError, InvalidObject, UsageError
from podwire.sandbox import lab
from podwire.sandbox.places import Places, check_name
from podwire.sandbox.plan import plan
from podwire.sandbox.plans import load, save

LABS = Path(__file__).resolve().parents[3] / "labs"


def test_nothing_given_is_two_nodes_with_ipv4() -> None:
    found = lab.parse(None)
    assert (found.name, found.node_names, found.ip_family, found.routing) == (
        "default",
        ("n1", "n2"),
        "ipv4",
        "native",
    )


@pytest.mark.parametrize(
    ("document", "path", "problem"),
    [
        ({"nodes": 0}, "nodes", "0 nodes are not possible"),
        ({"nodes": 17}, "nodes", "17 nodes"),
        ({"nodes": []}, "nodes", "1 to 16"),
        ({"nodes": ["a", "a"]}, "nodes[1]", "taken already"),
        ({"nodes": ["net"]}, "nodes[0]", "reserved"),
        ({"nodes": ["N"]}, "nodes[0]", "cannot be a node name"),
        ({"nodes": "two"}, "nodes", "Expected"),
        ({"name": "-x"}, "name", "cannot be a sandbox name"),
        ({"mtu": 100}, "mtu", "100 is not between"),
        ({"ipFamily": "both"}, "ipFamily", "both"),
        ({"routing": {}}, "routing", "Expected"),
        ({"worlds": [{"name": "w", "addresses": []}]}, "worlds[0].addresses", "needs an address"),
        ({"worlds": [{"name": "w", "addresses": ["x"]}]}, "worlds[0].addresses[0]", "not an IP address"),
        ({"worlds": [{"name": "n1", "addresses": ["1.1.1.1"]}]}, "worlds[0].name", "taken already"),
        (
            {"worlds": [{"name": "w", "addresses": ["1.1.1.1"], "serve": [0]}]},
            "worlds[0].serve[0]",
            "not a port",
        ),
        ({"dns": {"upstreams": ["dns.example"]}}, "dns.upstreams[0]", "not an IP address"),
        ({"color": 1}, "", "color"),
        ([], "", "Expected"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(document: object, path: str, problem: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        lab.parse(document)
    assert caught.value.path == path
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.1.1",
        "127.0.0.1",
        "::",
        "::1",
        "ff02::1",
        "fe80::1",
    ],
)
def test_a_world_has_the_address_of_a_host(address: str) -> None:
    with pytest.raises(InvalidObject, match="no host's address") as caught:
        lab.parse({"worlds": [{"name": "w", "addresses": ["203.0.113.1", address]}]})
    assert caught.value.path == "worlds[0].addresses[1]" and caught.value.hint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nodes: 1\nnodes: 2\n", "line 2: “nodes” is given twice"),
        ("worlds:\n- {name: w, name: v, addresses: [203.0.113.1]}\n", "line 2: “name” is given twice"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "lab.yaml").write_text(text)
    with pytest.raises(ConfigError, match=named):
        lab.read(tmp_path)


def test_manifests_are_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("manifests: [a.yaml]\n")
    with pytest.raises(ConfigError, match=r"no file a\.yaml"):
        lab.read(tmp_path)
    (tmp_path / "a.yaml").write_text("")
    assert lab.read(tmp_path).manifests == (str(tmp_path / "a.yaml"),)


@pytest.mark.parametrize("folder", sorted(one.name for one in LABS.iterdir()))
def test_the_labs_are_valid_and_told(folder: str) -> None:
    found = lab.read(LABS / folder)
    assert found.name == folder
    plan(found, folder, 1)
    readme = (LABS / folder / "README.md").read_text()
    assert f"podwire sandbox up -f labs/{folder}" in readme
    assert f"podwire sandbox down --name {folder}" in readme


def test_command_line_options_win_and_are_checked() -> None:
    changed = lab.changed(lab.Lab(), {"nodes": 3, "ip_family": None, "name": "x"})
    assert (changed.nodes, changed.ip_family, changed.name) == (3, "ipv4", "x")
    with pytest.raises(ConfigError):
        lab.changed(lab.Lab(), {"nodes": 99})


@given(st.integers(1, 16), st.sampled_from(["ipv4", "ipv6", "dual"]), st.integers(1, 250))
def test_no_two_things_of_a_plan_share_an_address(nodes: int, family: str, index: int) -> None:
    wanted = lab.parse({"nodes": nodes, "ipFamily": family})
    made = plan(wanted, "x", index)
    addresses = [*made.bridge, *(address for node in made.nodes for address in node.addresses), *made.dns]
    addresses += [address for node in made.nodes for address in node.routers]
    assert len(set(addresses)) == len(addresses)
    cidrs = [ipaddress.ip_network(cidr) for node in made.nodes for cidr in (*node.pod_cidrs,)]
    cidrs += [ipaddress.ip_network(cidr) for cidr in made.service_cidrs]
    for number, one in enumerate(cidrs):
        for other in cidrs[number + 1 :]:
            assert one.version != other.version or not one.overlaps(other)
    for node in made.nodes:
        for router, cidr in zip(node.routers, node.pod_cidrs, strict=True):
            assert ipaddress.ip_address(router) in ipaddress.ip_network(cidr)


@pytest.mark.parametrize("address", ["10.0.1.9", "10.96.0.1", "172.30.200.1"])
def test_a_world_must_not_use_the_clusters_addresses(address: str) -> None:
    with pytest.raises(InvalidObject, match="overlaps"):
        plan(lab.parse({"worlds": [{"name": "w", "addresses": [address]}]}), "x", 1)


@pytest.mark.parametrize(
    ("nodes", "path", "problem"),
    [
        (
            [{"name": "a", "podCIDRs": ["10.9.0.0/24"]}, {"name": "b", "podCIDRs": ["10.9.0.128/25"]}],
            "nodes[1].podCIDRs",
            "which node a uses",
        ),
        ([{"name": "a", "podCIDRs": ["10.96.4.0/24"]}], "nodes[0].podCIDRs", "which services use"),
        ([{"name": "a", "podCIDRs": ["10.9.0.1/24"]}], "nodes[0].podCIDRs[0]", "has host bits set"),
        ([{"name": "a", "podCIDRs": ["10.9.0.0/30"]}], "nodes[0].podCIDRs[0]", "no room for pods"),
        (
            [{"name": "a", "podCIDRs": ["fd09::/64"]}],
            "nodes[0].podCIDRs",
            "one CIDR is needed for each of IPv4",
        ),
        ([{"name": "a", "podCIDRs": ["10.0.2.0/24"]}, "n2"], "nodes[1].podCIDRs", "which node a uses"),
    ],
)
def test_pod_cidrs_that_cannot_be(nodes: list[object], path: str, problem: str) -> None:
    with pytest.raises(InvalidObject, match=problem) as caught:
        plan(lab.parse({"nodes": nodes}), "x", 1)
    assert caught.value.path == path


def test_pod_cidrs_of_ones_own_choice() -> None:
    made = plan(lab.parse({"nodes": [{"name": "a", "podCIDRs": ["10.9.0.0/25"]}, "b"]}), "x", 1)
    assert [(node.name, node.pod_cidrs, node.routers) for node in made.nodes] == [
        ("a", ("10.9.0.0/25",), ("10.9.0.126",)),
        ("b", ("10.0.2.0/24",), ("10.0.2.254",)),
    ]


def test_a_world_needs_a_family_the_lab_has() -> None:
    with pytest.raises(InvalidObject, match="needs ipFamily ipv6 or dual"):
        plan(lab.parse({"worlds": [{"name": "w", "addresses": ["2001:db8::1"]}]}), "x", 1)


def test_a_world_is_on_the_underlay_in_each_family_of_the_sandbox() -> None:
    wanted = {"ipFamily": "dual", "worlds": [{"name": "w", "addresses": ["203.0.113.9"]}]}
    assert plan(lab.parse(wanted), "x", 3).worlds[0].addresses == ("172.30.3.101", "fd00:30:3::65")


def test_a_plan_survives_the_disk(tmp_path: Path) -> None:
    made = plan(lab.parse({"worlds": [{"name": "w", "addresses": ["203.0.113.9"], "serve": [53]}]}), "x", 7)
    save(made, tmp_path / "plan.json")
    assert load(tmp_path / "plan.json") == made


@pytest.mark.parametrize("name", ["", "a" * 21, "A", "a_b", "-a", "a-", "a.b", "a/b", "../x"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_sockets_of_the_longest_names_fit_a_unix_address() -> None:
    places = Places("x" * 20, Path("/sys/fs/cgroup"))
    assert len(str(places.node("y" * 20) / "podwire.sock.new")) < 108
