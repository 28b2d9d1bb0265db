"""How an API server is set up."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster is: names and ranges that defaulting and allocation follow."""

    name: str = "podwire"
    domain: str = "cluster.local"
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    node_ports: tuple[int, int] = (30000, 32767)
    pod_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    lease_seconds: int = 40
    version: str = "v1.32.0+podwire"
    external_ips: tuple[str, ...] = ()


class ServerConfig(msgspec.Struct, kw_only=True):
    """Where an API server keeps its state and where it listens.

    `sockets` are bound, listening or not; the server takes them over. Without them it binds
    `host`:`port` (port 0: any). `names` and `addresses` go into the server's certificate.
    `nodes` are addresses of clients that others must not shut out: nodes' agents.
    """

    directory: Path
    host: str = "127.0.0.1"
    port: int = 0
    sockets: list[socket.socket] = []
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    cluster: ClusterSettings = ClusterSettings()
    advertise: str = ""  # host:port that pods and kubeconfigs use; empty: the first socket's
