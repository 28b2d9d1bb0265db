"""The network between nodes: a bridge in a namespace of its own, a veth pair to each node and world.

Nothing of it is in the machine's own namespace, and no route leads off the machine: the bridge is
the nodes' default gateway only so that they have one, and forwards nothing.

Made by a few batches of ip(8), one per namespace: that is faster than importing a netlink library
into a command that needs it for nothing else.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from podwire.base.errors import Conflict, NetworkError, NotSupported
from podwire.net import namespaces
from podwire.sandbox.places import Places
from podwire.sandbox.plan import API_PORT, Plan
from podwire.sandbox.record import Record

BRIDGE = "br0"
DEVICE = "eth0"
_SYSCTLS = {
    "all": (
        "net/ipv6/conf/all/accept_dad=0",
        "net/ipv6/conf/default/accept_dad=0",
        "net/ipv4/ping_group_range=0 2147483647",
    ),
    "node": ("net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"),
}


def members(plan: Plan) -> list[str]:
    """What has a network namespace: the underlay itself, nodes, worlds."""
    return ["net", *(node.name for node in plan.nodes), *(outside.world.name for outside in plan.worlds)]


def make(plan: Plan, places: Places, record: Record) -> None:
    """All namespaces of nodes and worlds, joined and addressed."""
    for member in members(plan):
        path = record.will_make("netns", places.netns(member))
        namespaces.create(path.name)
        nodes = any(node.name == member for node in plan.nodes)
        namespaces.run(path.name, _set_sysctls, _SYSCTLS["all"] + (_SYSCTLS["node"] if nodes else ()))
    _batch(places.netns("net"), _bridge(plan, places))
    for node in plan.nodes:
        _batch(places.netns(node.name), _member(plan, node.addresses, ()) + _to_worlds(plan))
    for outside in plan.worlds:
        lines = _member(plan, outside.addresses, outside.world.addresses) + _to_pods(plan)
        _batch(places.netns(outside.world.name), lines)


def _bridge(plan: Plan, places: Places) -> list[str]:
    lines = ["link set lo up", f"link add {BRIDGE} mtu {plan.lab.mtu} type bridge"]
    lines += [_address(f"{address}/{_bits(address)}", BRIDGE) for address in plan.bridge]
    lines.append(f"link set {BRIDGE} up")
    for member in [*(node.name for node in plan.nodes), *(outside.world.name for outside in plan.worlds)]:
        port = f"to-{member}"[:15]
        peer = f"peer name {DEVICE} mtu {plan.lab.mtu} netns {places.netns(member).name}"
        lines += [
            f"link add {port} mtu {plan.lab.mtu} type veth {peer}",
            f"link set {port} master {BRIDGE} up",
        ]
    return lines + _to_pods(plan, BRIDGE)  # pods reach the API, and it answers them


def _member(plan: Plan, addresses: Iterable[str], own: Iterable[str]) -> list[str]:
    lines = ["link set lo up", f"link set {DEVICE} up"]
    lines += [_address(f"{address}/{_bits(address)}", DEVICE) for address in addresses]
    lines += [_address(f"{address}/{128 if ':' in address else 32}", "lo") for address in own]
    lines += [f"route add default via {address} dev {DEVICE}" for address in plan.bridge]
    return lines


def _address(prefix: str, device: str) -> str:
    # Without `nodad` an IPv6 address is tentative until a worker of the kernel has been at it, also where
    # accept_dad is 0: on a busy machine that is later than the first bind(), which then fails.
    return f"addr add {prefix} dev {device}{' nodad' if ':' in prefix else ''}"


def _to_worlds(plan: Plan) -> list[str]:
    return [
        f"route add {address} via {_same_family(address, outside.addresses)} dev {DEVICE}"
        for outside in plan.worlds
        for address in outside.world.addresses
    ]


def _to_pods(plan: Plan, device: str = DEVICE) -> list[str]:
    return [
        f"route add {cidr} via {_same_family(cidr, node.addresses)} dev {device}"
        for node in plan.nodes
        for cidr in node.pod_cidrs
    ]


def _same_family(text: str, addresses: Iterable[str]) -> str:
    return next(address for address in addresses if (":" in address) == (":" in text))


def _bits(address: str) -> int:
    return 64 if ipaddress.ip_address(address).version == 6 else 24


def _set_sysctls(settings: Iterable[str]) -> None:
    for setting in settings:
        path, _, value = setting.partition("=")
        try:
            (Path("/proc/sys") / path).write_text(value)
        except FileNotFoundError:
            continue  # a kernel without IPv6
        except OSError as error:
            raise NetworkError(f"cannot set {path}: {error.strerror}") from error


def _batch(namespace: Path, lines: list[str]) -> None:
    """Run `lines` as one ip(8) batch inside `namespace`; NetworkError names the line that failed."""
    command = ["ip", "-n", namespace.name, "-batch", "-"]
    try:
        done = subprocess.run(
            command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise NotSupported(
            "the sandbox's underlay", hint="install iproute2: there is no `ip` here"
        ) from error
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise NetworkError(f"cannot build the network of {namespace.name}: {words}")


def listening(plan: Plan, places: Places, port: int) -> list[socket.socket]:
    """Listening sockets of the API server: on loopback for people, on the bridge for nodes and pods.

    `port` is the one on loopback; 0, or one that somebody else has by now: any that is free.
    """
    try:
        sockets = [_bound(None, "127.0.0.1", port)]
    except Conflict:
        sockets = [_bound(None, "127.0.0.1", 0)]
    net = str(places.netns("net"))
    return sockets + [_bound(net, address, API_PORT) for address in plan.bridge]


def _bound(namespace: str | None, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = namespaces.open_socket(namespace, family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((address, port))
        one.listen(1024)
    except OSError as error:
        one.close()
        raise Conflict(f"the API server cannot listen on {address} port {port}: {error.strerror}") from error
    return one
