"""What an agent can do, as Cilium's clients ask for it.

What podwire has not is off here, by name; whoever adds one tells it from its option and what the kernel has.
Pure.
"""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]
PLAIN = 65536  # bytes; a packet that may be larger is what Cilium calls BIG TCP
# Names of the sizes in /v1/config, as Facts.segments has them.
SIZES = ("GSOMaxSize", "GROMaxSize", "GSOIPv4MaxSize", "GROIPv4MaxSize")


OFF = {"enabled": False}
# What a node would do to packets beside forwarding them.
OPTIONAL: Shape = {
    "masquerading": {
        **OFF,
        "mode": "",
        "enabledProtocols": {"ipv4": False, "ipv6": False},
        "ip-masq-agent": False,
    },
    "bandwidth-manager": {**OFF, "devices": []},
    "host-firewall": {"mode": "Disabled", "devices": []},
    "cni-chaining": {"mode": "none"},
    "encryption": {"mode": "Disabled", "msg": ""},
    "srv6": OFF,
}
# What of services would be served beside the addresses in the cluster.
SERVICES: Shape = {
    "socketLBTracing": OFF,
    "bpfSocketLBHostnsOnly": False,
    "nodePort": OFF,
    "hostPort": OFF,
    "externalIPs": OFF,
    "nat46X64": {**OFF, "gateway": OFF, "service": OFF},
}


def segment_sizes(segments: tuple[int, int, int, int]) -> Shape:
    """What the kernel does not say is left out: a client takes its own default then."""
    return {name: size for name, size in zip(SIZES, segments, strict=True) if size}


def big_tcp(segments: tuple[int, int, int, int]) -> Shape:
    gso, gro, gso4, gro4 = segments
    return {
        "ipv4-big-tcp": {"enabled": min(gso4, gro4) > PLAIN, "maxGRO": gro4, "maxGSO": gso4},
        "ipv6-big-tcp": {"enabled": min(gso, gro) > PLAIN, "maxGRO": gro, "maxGSO": gso},
    }
