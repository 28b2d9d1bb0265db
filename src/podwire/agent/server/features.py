"""What an agent can do, as Cilium's clients ask for it: on where an option of its configuration says so.

An option that podwire does not have yet is off; the day it comes under Cilium's name, it is told as it is.
Pure.
"""

from __future__ import annotations

from typing import Any

from podwire.base.config import AgentConfig

Shape = dict[str, Any]
PLAIN = 65536  # bytes; a packet that may be larger is what Cilium calls BIG TCP
# Names of the sizes in /v1/config, as Facts.segments has them.
SIZES = ("GSOMaxSize", "GROMaxSize", "GSOIPv4MaxSize", "GROIPv4MaxSize")


def optional(config: AgentConfig) -> Shape:
    """Those of a node: what it does to packets beside forwarding them."""
    options = config.as_mapping()

    def on(*names: str) -> bool:
        return any(bool(options.get(name)) for name in names)

    ipv4, ipv6 = on("enable-ipv4-masquerade"), on("enable-ipv6-masquerade")
    encryption = "Wireguard" if on("enable-wireguard") else "IPsec" if on("enable-ipsec") else "Disabled"
    firewall = on("enable-host-firewall")
    return {
        "masquerading": {
            "enabled": ipv4 or ipv6,
            "mode": "BPF" if on("enable-bpf-masquerade") else "iptables" if ipv4 or ipv6 else "",
            "enabledProtocols": {"ipv4": ipv4, "ipv6": ipv6},
            "ip-masq-agent": on("enable-ip-masq-agent"),
        },
        "bandwidth-manager": {"enabled": on("enable-bandwidth-manager"), "devices": []},
        "host-firewall": {
            "mode": "Enabled" if firewall else "Disabled",
            "devices": [config.device] if firewall else [],
        },
        "cni-chaining": {"mode": options.get("cni-chaining-mode") or "none"},
        "encryption": {"mode": encryption, "msg": ""},
        "srv6": {"enabled": on("enable-srv6")},
    }


def services(config: AgentConfig) -> Shape:
    """What of services is served beside the addresses in the cluster."""
    options = config.as_mapping()

    def on(name: str) -> Shape:
        return {"enabled": bool(options.get(name))}

    return {
        "socketLBTracing": on("trace-sock"),
        "bpfSocketLBHostnsOnly": on("bpf-lb-sock-hostns-only")["enabled"],
        "nodePort": on("enable-node-port"),
        "hostPort": on("enable-host-port"),
        "externalIPs": on("enable-external-ips"),
        "nat46X64": on("enable-nat46x64-gateway")
        | {"gateway": {"enabled": False}, "service": {"enabled": False}},
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
