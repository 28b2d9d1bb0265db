"""An agent's start in a big cluster: 5,000 nodes, 100,000 pods, of which 20 are this node's.

The agent's own stages, from the API's bytes to rows in kernel maps, against an API that another process
simulates (simulated.py). *Local* is the time until the kernel has all endpoints of this node with their
identities and policies: they forward. *All* is when the maps are as the tables say, with every remote
pod in them. Memory is of the process with all that an agent imports, of which a second one, in the same
cluster without remote pods, is taken away for the share of a pod. No flows are read.

    python tests/bench/start.py          # both, as `make bench` does
    python tests/bench/start.py PODS     # one agent, here
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

from simulated import LOCAL_PODS, NODE

import podwire.agent.stages  # noqa: F401 -- an agent's memory is that of what it imports
from podwire.agent.labeling import Labeling
from podwire.base.aio import Supervised
from podwire.bpf.map import Map, MapType
from podwire.datapath.catalogue import CATALOGUE
from podwire.datapath.mirror import Target
from podwire.datapath.write import Writer
from podwire.identity.allocate import Allocator
from podwire.identity.ipcache import Ipcache
from podwire.identity.prefixes import Prefixes
from podwire.identity.select import Select
from podwire.kube import Client
from podwire.kube.credentials import Access
from podwire.loadbalancer.frontends import Frontends
from podwire.policy.compute import Compute
from podwire.policy.parse import parse
from podwire.sources.report import Reporter
from podwire.sources.watch import Sources
from podwire.state.tables import EndpointRow, NodeRow, Tables
from podwire.stores.identities import KubeIdentities

PODS = 100_000
MAPS = 1 << 18  # entries
LPM = ("podwire_policy", "podwire_ipcache_prefixes")


def main() -> None:
    if len(sys.argv) > 1:
        asyncio.events.Handle._run = Steps._run  # type: ignore[method-assign,assignment]
        asyncio.run(Start(int(sys.argv[1])).run())
        return
    alone, full = (_measured(pods) for pods in (0, PODS))
    each = (full["memory"] - alone["memory"]) * 1024 / PODS
    print(f"local forwards {full['local']:.2f} s")
    print(f"all known {full['all']:.2f} s ({full['cpu']:.2f} s of CPU)")
    print(f"rss {full['peak']:.0f} MiB at most, {full['memory']:.0f} at its end")
    print(f"rss of a remote pod {each:.2f} KiB")
    print(f"longest step {full['step'] * 1000:.0f} ms")


def _measured(pods: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, str(pods)], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        sys.exit(done.stderr)
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


class Kernel:
    """Maps as an agent makes them, without their pins and programs."""

    def target(self, name: str) -> Target:
        spec = CATALOGUE[name]
        kind = MapType.LPM_TRIE if name in LPM else MapType.ARRAY if name == "podwire_state" else MapType.HASH
        capacity = 1 if kind == MapType.ARRAY else MAPS
        return Map.create(kind, name[:15], spec.key, spec.value, capacity).untyped()


class Steps(asyncio.events.Handle):
    """How long the loop was held by one callback at most, in CPU time: other processes do not count."""

    longest = 0.0
    _plain = asyncio.events.Handle._run

    def _run(self) -> None:
        before = time.thread_time()
        Steps._plain(self)
        Steps.longest = max(Steps.longest, time.thread_time() - before)


class Start:
    """One agent's start."""

    def __init__(self, pods: int) -> None:
        self.pods = pods
        self.tables = tables = Tables()
        me = NodeRow(NODE, ("172.16.0.0",), ("10.0.0.0/24",), {}, True, ("10.0.0.254",))
        tables.nodes.put(me)
        for table in (tables.local_addresses, tables.devices):
            table.mark_all_ready()
        for number in range(LOCAL_PODS):
            tables.endpoints.put(_endpoint(number))
        tables.endpoints.mark_all_ready()
        self.sources = Sources(tables, node_name=NODE, parse=parse)
        self.allocator = Allocator(tables, Prefixes(tables, ipv4=True, ipv6=False))
        self.labeling = Labeling(tables, "default", self.allocator.expect)
        self.select = Select(tables)
        self.ipcache = Ipcache(tables, tunnel=True, ipv4=True, ipv6=False, service_cidrs=("10.96.0.0/16",))
        self.compute = Compute(tables, enable="default")
        self.frontends = Frontends(tables, restored_backends={}, restored_services={}, restored_sets={})
        self.writer = Writer(tables, Kernel(), NODE)
        gc.freeze()  # as the agent does

    async def run(self) -> None:
        api = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("simulated.py")), str(self.pods)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert api.stdout is not None
            port = int(api.stdout.readline())
            await self._measure(f"http://127.0.0.1:{port}")
        finally:
            api.kill()
            api.wait()

    async def _measure(self, server: str) -> None:
        started, busy = time.monotonic(), time.process_time()
        async with Client(Access(server=server)) as client, Supervised("agent") as group:
            reporter = Reporter(client, self.tables, node_name=NODE)
            for family in self.sources.families:
                group.start(f"watch {family.resource.plural}", self.sources.follow(client, family))
            group.start("label endpoints", self.labeling.run())
            group.start("allocate identities", self.allocator.run(KubeIdentities(client)))
            group.start("select identities", self.select.run())
            group.start("merge the ipcache", self.ipcache.run())
            group.start("resolve policies", self.compute.run())
            group.start("choose backends", self.frontends.run())
            group.start("write maps", self.writer.run())
            group.start("tell the API", reporter.run())
            while not self._forwards():
                await self.writer.round()
            print("local", time.monotonic() - started)
            while not self.writer.synced:
                await self.writer.round()
            print("all", time.monotonic() - started)
            print("cpu", time.process_time() - busy)
            print("memory", _status("VmRSS"))
            print("peak", _status("VmHWM"))
            print("step", Steps.longest)
            assert len(self.tables.remote_endpoints) == self.pods
            sys.stdout.flush()
            os._exit(0)  # as an agent that is killed: what it would undo is not measured

    def _forwards(self) -> bool:
        obeyed = self.tables.endpoint_policies
        return all(
            row.identity and obeyed.get(row.id) and self.writer.realized(row.id) == obeyed.get(row.id)
            for row in self.tables.endpoints
        )


def _endpoint(number: int) -> EndpointRow:
    """As attached: its labels and identity are still to be found."""
    return EndpointRow(
        id=1 + number,
        namespace="team-1",
        pod=f"local-{number}",
        uid="",
        container_id=f"c{number}",
        netns="",
        interface=f"lxc{number}",
        ifindex=100 + number,
        mac="02:00:00:00:00:01",
        host_mac="02:00:00:00:00:02",
        ipv4=f"10.0.0.{1 + number}",
        ipv6="",
        labels=(),
        identity=0,
        ports=(),
        state="waiting-for-identity",
    )


def _status(field: str) -> float:
    """MiB."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()
