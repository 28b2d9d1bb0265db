"""A node of the tests: small maps, pinned where the test says."""

from __future__ import annotations

import os

from podwire.base.config import AgentConfig
from podwire.datapath import programs as loading


def config_of(pins: str) -> AgentConfig:
    return AgentConfig(
        node_name="n1",
        bpf_dir=os.path.join(pins, "n1"),
        ct_max=1024,
        policy_map_max=64,
        policy_peers_max=64,
        ipcache_max=64,
        lb_map_max=64,
    )


def plan(pins: str) -> loading.Loading:
    return loading.plan(config_of(pins), ("192.0.2.1",), tunnel_device=0, tunnel_mtu=0)
