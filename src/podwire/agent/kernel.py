"""What this node has in the kernel: its devices, programs on their hooks, and what pods are plumbed with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from podwire.base.config import AgentConfig
from podwire.bpf import probe
from podwire.datapath import hooks, objects, routes
from podwire.datapath.endpoints import Plumbing
from podwire.datapath.hooks import Part, Where
from podwire.datapath.programs import Loading, Programs, plan
from podwire.datapath.write import Writer
from podwire.state.tables import NodeRow

log = logging.getLogger(__name__)


PROGRAMS = Part("programs", objects.MODERN, "the programs are those for older kernels (legacy)")


def degraded() -> dict[Part, str]:
    """What is done in another way here, or not at all: which features are missing, and since when."""
    found = {}
    for part in (PROGRAMS, *hooks.parts()):
        if missing := probe.missing(part.features):
            named = ", ".join(f"{one.name} (Linux {one.since})" for one in missing)
            found[part] = f"this kernel is without {named}: {part.instead}"
    return found


class Kernel:
    """The node's devices, programs on their hooks, and what pods are plumbed with.

    `config` is without what this kernel does not have; `degraded` says so.
    """

    def __init__(self, config: AgentConfig, me: NodeRow) -> None:
        objects.require_kernel()
        self.degraded = degraded()
        for part, problem in self.degraded.items():
            log.log(logging.WARNING if part.less else logging.INFO, "%s", problem)
        if hooks.SOCKETS in self.degraded:
            config = msgspec.structs.replace(config, socket_lb=False)
        self.variant = objects.variant()
        self.config = config
        self.prepared = prepared = routes.prepare(config, me)
        self.programs = programs = Programs.load(self._plan(me, prepared))
        self.taken_over = asyncio.Event()  # our programs are on every hook
        if not programs.made_new:
            self.take_over()
        self.plumbing = Plumbing(
            programs, gateways=me.router_addresses, mtu=prepared.mtu, route_mtu=prepared.route_mtu
        )
        self.routes = routes.RouteTarget(prepared)

    def _plan(self, me: NodeRow, prepared: routes.Prepared) -> Loading:
        return plan(
            self.config,
            me.addresses,
            network_device=prepared.ifindex,
            tunnel_device=prepared.tunnel_device,
            tunnel_mtu=prepared.route_mtu,
        )

    def become(self, me: NodeRow, gone: Sequence[str] = ()) -> None:
        """Be what this node's object says now; `gone` are router addresses it has no more.

        For a thread. Each step can be taken again; if one fails, what was in force before it stays.
        """
        prepared = routes.prepare(self.config, me, gone)
        self.programs.tell(self._plan(me, prepared).constants)
        self.plumbing.use(me.router_addresses, mtu=prepared.mtu, route_mtu=prepared.route_mtu)
        self.routes.prepared = self.prepared = prepared

    def take_over(self) -> None:
        """Our programs on every hook, in the place of an earlier agent's where there are any."""
        prepared, programs = self.prepared, self.programs
        programs.replace_all()
        programs.attach(Where.NETWORK, prepared.device, prepared.ifindex)
        if prepared.tunnel_device:
            programs.attach(Where.OVERLAY, routes.TUNNEL, prepared.tunnel_device)
        if self.config.socket_lb and self.config.cgroup:
            programs.attach_cgroup(self.config.cgroup)
        programs.drop_old()
        self.taken_over.set()

    async def take_over_when_filled(self, writer: Writer) -> None:
        """Maps of another layout than an earlier agent had begin empty: its programs run until then."""
        while self.programs.made_new and not writer.synced:
            await asyncio.sleep(0.05)
        if self.programs.made_new:
            self.take_over()
            log.info("took over with new maps: %s", ", ".join(self.programs.made_new))

    def close(self) -> None:
        """Close descriptors; what is in the kernel goes on."""
        self.routes.close()
        self.plumbing.close()
        self.programs.close()
