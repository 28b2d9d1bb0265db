"""Every option of the agent, once: name, type, default, help. Names follow Cilium's where the
meaning is the same.

Read from a JSON file (`AgentConfig.read`); an unknown key, one given twice, a wrong type, and a value
that the kernel, the programs or a path cannot hold are refused with the option's name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from podwire.base.errors import ConfigError

Meta = msgspec.Meta

U32_MAX = (1 << 32) - 1  # what the programs' constants hold
ENTRIES_MAX = 1 << 24  # of one map or ring: gigabytes; beyond it the kernel has no memory, whatever it says
MTU_MIN = 1280  # of IPv6, and enough for a tunnel's headers

# `\Z`, as `$` also stands before a line's end.
CLUSTER_OF_MESH = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"  # Cilium's rule: others may know it by no other
NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z"
DEVICE = r"^(?!\.{1,2}\Z)[!-.0-9;-~]{1,15}\Z"  # the kernel's rule: no "/", ":" or blank
PATH = r"^/[^\x00]{0,4095}\Z"
PATH_OR_NONE = r"^(/[^\x00]{0,4095})?\Z"
HOST_PORT = r"^((\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5})?\Z"
HINTS = {
    NAME: "lower-case letters, digits, hyphens and dots, at most 253, for example n1",
    DEVICE: "1 to 15 characters without blanks, “/” or “:”, for example eth0",
    PATH: "an absolute path, for example /run/podwire",
    PATH_OR_NONE: "an absolute path, or empty for none",
    HOST_PORT: "host:port, for example 0.0.0.0:4244 or [::]:4244, or empty for none",
}


def misnamed_cluster(name: str, number: int, most: int) -> Iterator[tuple[str, str]]:
    """What a cluster of a mesh cannot be called, or numbered, and what would do."""
    if number > most:
        yield (
            f"cluster-id {number} is above max-connected-clusters",
            f"0 to {most}, or 511 as the highest in all clusters of the mesh",
        )
    if not number:
        return
    if name == "default":
        yield (
            f"cluster-id {number} with the cluster-name “default”",
            "a cluster of a mesh has a name of its own, for example east",
        )
    elif not re.fullmatch(CLUSTER_OF_MESH, name):
        yield (
            f"cluster-name {name} with cluster-id {number}",
            "in a mesh lower-case letters, digits and hyphens, at most 32, for example east",
        )


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """One node's agent."""

    node_name: Annotated[str, Meta(description="this node's name in the Kubernetes API", pattern=NAME)]
    cluster_name: Annotated[str, Meta(description="name of the cluster", pattern=NAME)] = "default"
    cluster_id: Annotated[
        int,
        Meta(
            description="number of the cluster in its mesh, another one in each; 0 = it is in none. "
            "It is part of identities: a cluster that gets another one numbers all its pods anew",
            ge=0,
            le=511,
        ),
    ] = 0
    max_connected_clusters: Annotated[
        Literal[255, 511],
        Meta(
            description="highest cluster-id of the mesh, the same in all its clusters; "
            "511 halves the identities of each"
        ),
    ] = 255
    policy_default_local_cluster: Annotated[
        bool,
        Meta(
            description="in a mesh, policies that select peers by labels and name no cluster mean this one's"
        ),
    ] = True
    kubeconfig: Annotated[
        str, Meta(description="how to reach the API; empty = in-cluster credentials", pattern=PATH_OR_NONE)
    ] = ""
    run_dir: Annotated[str, Meta(description="sockets and state of this node", pattern=PATH)] = "/run/podwire"
    bpf_dir: Annotated[
        str, Meta(description="directory below a bpffs for pinned maps and links", pattern=PATH)
    ] = "/sys/fs/bpf/podwire"
    object_dir: Annotated[
        str, Meta(description="compiled BPF objects; empty = the installed ones", pattern=PATH_OR_NONE)
    ] = ""
    cgroup: Annotated[
        str,
        Meta(
            description="cgroup2 directory of this node's pods and processes, for socket load balancing",
            pattern=PATH_OR_NONE,
        ),
    ] = ""
    device: Annotated[str, Meta(description="the node's device towards other nodes", pattern=DEVICE)] = "eth0"
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
        int, Meta(description="seconds between events of one connection", ge=1, le=U32_MAX)
    ] = 5
    hubble_listen_address: Annotated[
        str, Meta(description="host:port with TLS; empty = unix socket only", pattern=HOST_PORT)
    ] = ""
    hubble_tls_cert: Annotated[
        str, Meta(description="certificate of the Hubble server", pattern=PATH_OR_NONE)
    ] = ""
    hubble_tls_key: Annotated[str, Meta(description="its key", pattern=PATH_OR_NONE)] = ""
    hubble_tls_ca: Annotated[
        str,
        Meta(
            description="clients must show a certificate of this CA; empty = none needed",
            pattern=PATH_OR_NONE,
        ),
    ] = ""
    hubble_flow_capacity: Annotated[
        int, Meta(description="flows kept in memory", ge=1024, le=ENTRIES_MAX)
    ] = 1 << 18
    ct_max: Annotated[int, Meta(description="connections tracked", ge=1024, le=ENTRIES_MAX)] = 65536
    ct_overflow_max: Annotated[
        int,
        Meta(
            description="connections tracked beyond that or beyond an endpoint's share; the oldest go",
            ge=64,
            le=ENTRIES_MAX,
        ),
    ] = 16384
    ct_endpoint_max: Annotated[
        int,
        Meta(
            description="connections of one endpoint and direction never forgotten early; 0 = ct-max / 4",
            ge=0,
            le=ENTRIES_MAX,
        ),
    ] = 0
    neighbour_share: Annotated[
        int,
        Meta(
            description="packets a second of one endpoint that make the node ask for a neighbour; 0 = all",
            ge=0,
            le=U32_MAX,
        ),
    ] = 16
    event_share: Annotated[
        int,
        Meta(
            description="records a second of one endpoint and direction while the ring fills; 0 = all",
            ge=0,
            le=U32_MAX,
        ),
    ] = 512
    policy_map_max: Annotated[int, Meta(description="policy entries", ge=64, le=ENTRIES_MAX)] = 65536
    policy_peers_max: Annotated[
        int, Meta(description="blocks of 16 identities × policies", ge=64, le=ENTRIES_MAX)
    ] = 131072
    ipcache_max: Annotated[int, Meta(description="addresses with identities", ge=64, le=ENTRIES_MAX)] = 65536
    lb_map_max: Annotated[
        int, Meta(description="frontends; backends and slots four times that", ge=64, le=ENTRIES_MAX // 4)
    ] = 32768
    map_growth_max: Annotated[
        int,
        Meta(
            description="a full map is replaced by a bigger one up to so many entries", ge=64, le=ENTRIES_MAX
        ),
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
            text = path.read_bytes()
            found = msgspec.json.decode(text, type=cls)
        except OSError as error:
            raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _refused(path, str(error)) from error
        for option in _twice(text):
            raise ConfigError(f"configuration {path}: {option} is given twice", hint="remove one of the two")
        for problem, hint in found._contradictions():
            raise ConfigError(f"configuration {path}: {problem}", hint=hint)
        return found

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """What each option alone allows and all together do not: the problem, and what to do."""
        if not (self.enable_ipv4 or self.enable_ipv6):
            yield "enable-ipv4 and enable-ipv6 are both off", "turn one of them on"
        if 0 < self.mtu < MTU_MIN:
            yield f"mtu {self.mtu} is below {MTU_MIN}", f"{MTU_MIN} to 65535, or 0 for the device's"
        if bool(self.hubble_tls_cert) != bool(self.hubble_tls_key):
            yield "hubble-tls-cert and hubble-tls-key go together", "give both, or none"
        yield from misnamed_cluster(self.cluster_name, self.cluster_id, self.max_connected_clusters)
        for prefix in self.service_cidrs:
            try:
                ip_network(prefix)
            except ValueError as error:
                yield (
                    f"service-cidrs: {error}",
                    "prefixes like 10.96.0.0/12, with no bits beyond their length",
                )
        if self.hubble_listen_address:
            if not self.hubble_tls_cert:
                yield (
                    "hubble-listen-address without hubble-tls-cert",
                    "flows never travel in clear: give a certificate",
                )
            if not 1 <= int(self.hubble_listen_address.rpartition(":")[2]) <= 65535:
                yield "hubble-listen-address: its port is not between 1 and 65535", HINTS[HOST_PORT]

    def as_mapping(self) -> dict[str, Any]:
        """Keys as in the file."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


def _twice(text: bytes) -> list[str]:
    """Keys of the outermost object that it has more than once: JSON's readers take the last in silence."""
    objects: list[list[tuple[str, Any]]] = []  # innermost first
    json.loads(text, object_pairs_hook=objects.append)
    return [key for key, times in Counter(key for key, _ in objects[-1]).items() if times > 1]


def _refused(path: Path, problem: str) -> ConfigError:
    """msgspec's sentence with the option before it, and with words instead of a pattern."""
    option = re.search(r" - at `\$\.([a-z0-9-]+)", problem)
    if option is None:
        return ConfigError(
            f"configuration {path}: {problem}", hint="docs/reference/options.md lists the options"
        )
    name = option[1]
    said = problem[: option.start()]
    if "regex" in said:
        schema = msgspec.json.schema(AgentConfig)["$defs"]["AgentConfig"]["properties"][name]
        return ConfigError(
            f"configuration {path}: {name} is not what it must be", hint=f"{name}: {HINTS[schema['pattern']]}"
        )
    return ConfigError(
        f"configuration {path}: {name}: {said}", hint=f"docs/reference/options.md tells what {name} is"
    )
