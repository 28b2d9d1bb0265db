"""Where programs are: one row for each hook. Who loads, attaches, replaces or tells of programs asks here.

A program is on its hook by a link, or before Linux 6.6 by a filter of clsact, that is pinned (or recorded)
below ``<bpf_dir>/links`` under a name that says which row it is of: ``pods/lxc1-ingress``,
``network-eth0-egress``, ``cgroup-podwire_connect4``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from podwire.bpf.link import CGROUP_SECTIONS
from podwire.bpf.link import Hook as Point


class Where(Enum):
    """What programs are on, with what the names of their pins begin with."""

    POD = "pods/"  # the host side of each pod's veth
    NETWORK = "network-"  # the node's device towards other nodes
    OVERLAY = "overlay-"  # the tunnel device
    CGROUP = "cgroup-"  # the node's cgroup

    @property
    def is_device(self) -> bool:
        return self is not Where.CGROUP


class Part(msgspec.Struct, frozen=True):
    """What a kernel without these features does otherwise, or (`less`) not at all."""

    name: str
    features: tuple[str, ...]
    instead: str
    less: bool = False


class Hook(msgspec.Struct, frozen=True):
    """One program's place. Of those on one thing the first is attached first."""

    where: Where
    object: str
    program: str
    point: Point
    part: Part

    @property
    def side(self) -> str:
        """How a pin's name ends."""
        return SIDES.get(self.point, self.program)

    def pin(self, device: str = "") -> str:
        """Name of the link, below the directory of links."""
        return f"{self.where.value}{device}-{self.side}" if self.where.is_device else f"cgroup-{self.program}"


SIDES = {Point.TC_INGRESS: "ingress", Point.TC_EGRESS: "egress", Point.XDP: "xdp"}
CALLS = tuple(section.removeprefix("cgroup/") for section in CGROUP_SECTIONS)
DEVICES = Part("devices", ("tcx",), "programs are filters (clsact)")
SOCKETS = Part(
    "sockets",
    ("cgroup link", *(f"cgroup {call}" for call in CALLS)),
    "services are translated packet by packet, not when a socket connects",
    less=True,
)

HOOKS = (
    Hook(Where.POD, "lxc", "podwire_from_pod", Point.TC_INGRESS, DEVICES),
    Hook(Where.POD, "lxc", "podwire_to_pod", Point.TC_EGRESS, DEVICES),
    Hook(Where.NETWORK, "host", "podwire_from_network", Point.TC_INGRESS, DEVICES),
    Hook(Where.NETWORK, "host", "podwire_to_network", Point.TC_EGRESS, DEVICES),
    Hook(Where.OVERLAY, "overlay", "podwire_from_overlay", Point.TC_INGRESS, DEVICES),
    Hook(Where.OVERLAY, "overlay", "podwire_to_overlay", Point.TC_EGRESS, DEVICES),
    *(
        Hook(Where.CGROUP, "sock", f"podwire_{call}", CGROUP_SECTIONS[f"cgroup/{call}"], SOCKETS)
        for call in CALLS
    ),
)


def on(where: Where) -> tuple[Hook, ...]:
    """The hooks there, in the order in which they are attached."""
    return tuple(hook for hook in HOOKS if hook.where is where)


def objects(places: Iterable[Where]) -> tuple[str, ...]:
    """The objects that have the programs for these places."""
    wanted = set(places)
    return tuple(dict.fromkeys(hook.object for hook in HOOKS if hook.where in wanted))


def parts() -> tuple[Part, ...]:
    """What may be done otherwise on some kernel."""
    return tuple(dict.fromkeys(hook.part for hook in HOOKS))


def of_pin(name: str) -> tuple[Hook, str] | None:
    """Which hook a link is of, by its name, and the device it is on; None = of none that there is now."""
    for hook in HOOKS:
        if not hook.where.is_device:
            if name == hook.pin():
                return hook, ""
        elif name.startswith(hook.where.value):
            device, _, side = name.removeprefix(hook.where.value).rpartition("-")
            if device and side == hook.side:
                return hook, device
    return None
