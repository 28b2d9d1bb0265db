"""The agent's options: read by name, refused by name."""

from pathlib import Path

import pytest

from podwire.base.config import AgentConfig
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
    import msgspec

    for field in msgspec.json.schema(AgentConfig)["$defs"]["AgentConfig"]["properties"].values():
        assert field.get("description") or any("description" in part for part in field.get("anyOf", ()))
