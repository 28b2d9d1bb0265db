"""The agent's options: read by name, refused by name."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwire.base.config import HINTS, AgentConfig
from podwire.base.errors import ConfigError


def test_options_have_kebab_names(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text('{"node-name": "n1", "routing-mode": "tunnel", "mtu": 1400}')
    config = AgentConfig.read(path)
    assert (config.node_name, config.routing_mode, config.mtu) == ("n1", "tunnel", 1400)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"node-name": "n1", "colour": "red"}', "colour"),
        ('{"node-name": "n1", "mtu": "big"}', "mtu"),
        ('{"node-name": "n1", "routing-mode": "pigeon"}', "routing-mode"),
        ("{}", "node-name"),
        ('{"node-name": "n1", "enable-ipv4": false}', "both off"),
        ('{"node-name": "n1", "service-cidrs": ["10.96.0.0/33"]}', "service-cidrs: .*10.96.0.0/33"),
        ('{"node-name": "n1", "service-cidrs": ["10.96.0.1/16"]}', "service-cidrs: .*10.96.0.1/16"),
        ("not json", "agent.json"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "agent.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        AgentConfig.read(path)


def test_every_option_has_help() -> None:
    for field in msgspec.json.schema(AgentConfig)["$defs"]["AgentConfig"]["properties"].values():
        assert field.get("description") or any("description" in part for part in field.get("anyOf", ()))


def schema() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = msgspec.json.schema(AgentConfig)["$defs"]["AgentConfig"]["properties"]
    return found


def refusal(tmp_path: Path, **options: Any) -> ConfigError:
    path = tmp_path / "agent.json"
    path.write_text(
        json.dumps({"node-name": "n1"} | {name.replace("_", "-"): v for name, v in options.items()})
    )
    with pytest.raises(ConfigError) as caught:
        AgentConfig.read(path)
    return caught.value


def test_every_number_has_bounds_and_every_text_a_pattern(tmp_path: Path) -> None:
    numbers = {name: one for name, one in schema().items() if one.get("type") == "integer"}
    texts = {name: one for name, one in schema().items() if one.get("type") == "string" and "enum" not in one}
    assert numbers and texts
    for name, one in numbers.items():
        assert one["maximum"] < 1 << 32, name
        for beyond in (one["minimum"] - 1, one["maximum"] + 1, 1 << 32, 10**30):
            error = refusal(tmp_path, **{name: beyond})
            assert name in str(error) and error.hint, (name, beyond)
    for name, one in texts.items():
        assert one["pattern"] in HINTS, name
        for wrong in ("A b/..", "x\n", "\x00", "../x y"):
            error = refusal(tmp_path, **{name: wrong})
            assert name in str(error) and error.hint, (name, wrong)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"node_name": ""}, "node-name"),
        ({"cluster_name": ""}, "cluster-name"),
        ({"cluster_id": 512}, "cluster-id"),
        ({"cluster_id": 256, "cluster_name": "east"}, "max-connected-clusters"),
        ({"max_connected_clusters": 300}, "max-connected-clusters"),
        ({"cluster_id": 1}, "default"),
        ({"cluster_id": 1, "cluster_name": "east.example"}, "cluster-name"),
        ({"cluster_id": 1, "cluster_name": "e" * 33}, "cluster-name"),
        ({"device": "a" * 16}, "device"),
        ({"device": "a/b"}, "device"),
        ({"device": ".."}, "device"),
        ({"bpf_dir": "bpf"}, "bpf-dir"),
        ({"run_dir": ""}, "run-dir"),
        ({"mtu": 1}, "mtu"),
        ({"mtu": 1279}, "mtu"),
        ({"hubble_listen_address": "4244"}, "hubble-listen-address"),
        ({"hubble_listen_address": "0.0.0.0:4244"}, "hubble-listen-address"),
        (
            {"hubble_listen_address": "h:70000", "hubble_tls_cert": "/c", "hubble_tls_key": "/k"},
            "hubble-listen-address",
        ),
        ({"hubble_tls_cert": "/c"}, "hubble-tls-key"),
        ({"hubble_tls_key": "/k"}, "hubble-tls-cert"),
    ],
)
def test_a_text_or_a_pair_that_cannot_work_is_refused(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    error = refusal(tmp_path, **options)
    assert named in str(error) and error.hint


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text('{"node-name": "n1", "mtu": 1400, "mtu": 1500}')
    with pytest.raises(ConfigError, match="mtu is given twice"):
        AgentConfig.read(path)


def test_what_is_at_the_bounds_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    for mtu in (0, 1280, 65535):
        path.write_text(json.dumps({"node-name": "node-1.example", "mtu": mtu, "device": "bond0.100"}))
        assert AgentConfig.read(path).mtu == mtu
    served = {"hubble-listen-address": "[::]:4244", "hubble-tls-cert": "/c", "hubble-tls-key": "/k"}
    path.write_text(json.dumps({"node-name": "n1"} | served))
    assert AgentConfig.read(path).hubble_listen_address == "[::]:4244"
