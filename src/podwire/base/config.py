"""Every option of the agent, once: name, type, default, help. Names follow Cilium's where the
meaning is the same.

Read from a JSON file (`AgentConfig.read`); an unknown key or a wrong type is refused with its
name.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from podwire.base.errors import ConfigError

Meta = msgspec.Meta


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """One node's agent."""

    node_name: Annotated[str, Meta(description="this node's name in the Kubernetes API")]
    cluster_name: Annotated[str, Meta(description="name of the cluster")] = "default"
    kubeconfig: Annotated[str, Meta(description="how to reach the API; empty = in-cluster credentials")] = ""
    run_dir: Annotated[str, Meta(description="sockets and state of this node")] = "/run/podwire"
    bpf_dir: Annotated[str, Meta(description="directory below a bpffs for pinned maps and links")] = (
        "/sys/fs/bpf/podwire"
    )
    object_dir: Annotated[str, Meta(description="compiled BPF objects; empty = the installed ones")] = ""
    cgroup: Annotated[
        str,
        Meta(description="cgroup2 directory of this node's pods and processes, for socket load balancing"),
    ] = ""
    device: Annotated[str, Meta(description="the node's device towards other nodes")] = "eth0"
    routing_mode: Annotated[
        Literal["native", "tunnel"], Meta(description="how packets reach other nodes")
    ] = "native"
    tunnel_port: Annotated[
        int, Meta(description="UDP port of the tunnel, the same on all nodes", ge=1, le=65535)
    ] = 8472
    enable_ipv4: Annotated[bool, Meta(description="pods have IPv4 addresses")] = True
    enable_ipv6: Annotated[bool, Meta(description="pods have IPv6 addresses")] = False
    service_cidrs: Annotated[
        tuple[str, ...],
        Meta(description="prefixes of Services' addresses: what pods send to one no Service has is dropped"),
    ] = ()
    mtu: Annotated[int, Meta(description="of the underlay; 0 = the device's", ge=0, le=65535)] = 0
    enable_policy: Annotated[
        Literal["default", "always", "never"], Meta(description="policy enforcement mode")
    ] = "default"
    policy_audit_mode: Annotated[bool, Meta(description="report verdicts, drop nothing")] = False
    socket_lb: Annotated[bool, Meta(description="translate services when a socket connects")] = True
    monitor_aggregation_interval: Annotated[
        int, Meta(description="seconds between events of one connection", ge=1)
    ] = 5
    hubble_listen_address: Annotated[
        str, Meta(description="host:port with TLS; empty = unix socket only")
    ] = ""
    hubble_tls_cert: Annotated[str, Meta(description="certificate of the Hubble server")] = ""
    hubble_tls_key: Annotated[str, Meta(description="its key")] = ""
    hubble_tls_ca: Annotated[
        str, Meta(description="clients must show a certificate of this CA; empty = none needed")
    ] = ""
    hubble_flow_capacity: Annotated[int, Meta(description="flows kept in memory", ge=1024)] = 1 << 20
    ct_max: Annotated[int, Meta(description="connections tracked", ge=1024)] = 65536
    ct_overflow_max: Annotated[
        int,
        Meta(
            description="connections tracked beyond that or beyond an endpoint's share; the oldest go", ge=64
        ),
    ] = 16384
    ct_endpoint_max: Annotated[
        int,
        Meta(
            description="connections of one endpoint and direction never forgotten early; 0 = ct-max / 4",
            ge=0,
        ),
    ] = 0
    neighbour_share: Annotated[
        int,
        Meta(
            description="packets a second of one endpoint that make the node ask for a neighbour; 0 = all",
            ge=0,
        ),
    ] = 16
    event_share: Annotated[
        int,
        Meta(
            description="records a second of one endpoint and direction while the ring fills; 0 = all",
            ge=0,
        ),
    ] = 512
    policy_map_max: Annotated[int, Meta(description="policy entries", ge=64)] = 65536
    policy_peers_max: Annotated[int, Meta(description="identities × policies", ge=64)] = 131072
    ipcache_max: Annotated[int, Meta(description="addresses with identities", ge=64)] = 65536
    lb_map_max: Annotated[int, Meta(description="frontends; backends and slots four times that", ge=64)] = (
        32768
    )
    map_growth_max: Annotated[
        int, Meta(description="a full map is replaced by a bigger one up to so many entries", ge=64)
    ] = 1 << 22
    debug: Annotated[bool, Meta(description="log more")] = False

    @property
    def socket(self) -> Path:
        """The agent's local socket."""
        return Path(self.run_dir) / "podwire.sock"

    @property
    def hubble_socket(self) -> Path:
        return Path(self.run_dir) / "hubble.sock"

    @classmethod
    def read(cls, path: Path) -> AgentConfig:
        """From a JSON file; ConfigError names what is wrong."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise ConfigError(f"configuration {path}: {error}") from error
        if not (found.enable_ipv4 or found.enable_ipv6):
            raise ConfigError(f"configuration {path}: enable-ipv4 and enable-ipv6 are both off")
        for prefix in found.service_cidrs:
            try:
                ip_network(prefix)
            except ValueError as error:
                raise ConfigError(f"configuration {path}: service-cidrs: {error}") from error
        return found

    def as_mapping(self) -> dict[str, Any]:
        """Keys as in the file."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]
