"""Prefixes to identities: who is behind an address, when several say they know.

In the walk: endpoints, nodes, pods and local identities are in tables; datapath.write puts table
ipcache into the kernel. For one prefix the first by `precedence.rank` that claims it wins; between
prefixes the kernel takes the longest.

An identity is published only after policy.compute has taken it in (table progress): else packets
would for a moment be of an identity that no policy knows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, Protocol

import msgspec

from podwire.base.addresses import IPNetwork, exact, family, is_exact
from podwire.base.aio import boundary, in_slices
from podwire.identity import apiserver, prefixes
from podwire.identity.precedence import Overlaps, rank
from podwire.model import identity
from podwire.model.cluster import OWN
from podwire.state.progress import POLICIES, policies_know
from podwire.state.table import Batch, ReadTable, Table, Watch
from podwire.state.tables import (
    EndpointRow,
    IpcacheRow,
    LocalAddressRow,
    NodeRow,
    PodRow,
    RemoteEndpointRow,
)
from podwire.state.views import ReadTables
from podwire.state.writers import IPCACHE

FINISHED = ("Succeeded", "Failed")


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def ipcache(self) -> Table[IpcacheRow]: ...


class Ipcache:
    """Keeps table ipcache. With `tunnel`, what is on another node is reached through that node."""

    def __init__(
        self, tables: Written, *, tunnel: bool, ipv4: bool, ipv6: bool, service_cidrs: Sequence[str] = ()
    ) -> None:
        self.tables = tables
        self._tunnel = tunnel
        self._families = {version for version, on in ((4, ipv4), (6, ipv6)) if on}
        self._claims: dict[Hashable, tuple[str, ...]] = {}  # claimant → prefixes
        # prefix → (claimant, row); of several, claimant → row: nearly all of 100,000 have one
        self._claimed: dict[str, tuple[Hashable, IpcacheRow] | dict[Hashable, IpcacheRow]] = {}
        self._named: set[str] = set()  # prefixes that rules name
        self._waiting: dict[int, set[str]] = {}  # identities that policies do not know yet → prefixes
        self._waits: dict[str, tuple[int, ...]] = {}  # the other way
        self._reaching: list[tuple[int, int]] = []  # a heap: (revision to be reached, identity)
        self._reached_at: dict[int, int] = {}  # identity → its last revision in that heap
        self._starting: set[str] = set()  # of these, those the first version of the table must not lack
        self._touched: set[str] = set()  # prefixes to be published
        self._own: set[str] = set()  # of these, at the start, those of pods of this node
        self._whole = False  # all who say something have said what there was at the start
        self.overlaps = Overlaps()
        self._grounds: dict[IPNetwork, IpcacheRow] = {}  # prefixes of which a rule's part is the same
        world = {4: identity.WORLD_IPV4 if ipv6 else identity.WORLD, 6: identity.WORLD_IPV6}
        self._claim(
            "world",
            [
                IpcacheRow(prefix, world[version], "world")
                for prefix, version in (("0.0.0.0/0", 4), ("::/0", 6))
            ],
        )
        self._claim(
            "service-cidrs",
            [
                IpcacheRow(prefix, world[family(prefix)], "service-cidr", holds="services")
                for prefix in service_cidrs
            ],
        )

    def reads(self) -> tuple[ReadTable[Any], ...]:
        """The tables whose changes `step` takes, in its order."""
        tables = self.tables
        return (
            tables.endpoints,
            tables.nodes,
            tables.slices,
            tables.remote_endpoints,
            tables.pods,
            tables.identities,
            tables.local_addresses,
            tables.progress,
        )

    async def run(self) -> None:
        """Until cancelled."""
        with Watch(*self.reads()) as watch:
            while True:
                await in_slices(self.steps(*await watch.next()))

    def step(self, *batches: Batch[Any]) -> None:
        """Take in what changed in the tables of `reads`, and publish what it means."""
        for _ in self.steps(*batches):
            pass

    def steps(self, *batches: Batch[Any]) -> Iterator[None]:
        """`step`, in pieces, a claim or a prefix each: after each one, others may have their turn."""
        endpoints, nodes, slices, remote, pods, identities, local, progress = batches
        yield from self._take("endpoint", endpoints, self._of_endpoint)
        for change in endpoints:
            self._own.update(self._claims.get(("endpoint", change.key), ()))
        yield from self._take("node", nodes, self._of_node)
        for change in nodes:
            node: Any = change.key
            for pod in self.tables.pods.by("node", node[-1]):
                self._claim(("pod", (pod.namespace, pod.name)), self._of_pod(pod))
                yield
        if nodes or apiserver.concerned(slices):
            on_nodes, _ = apiserver.addresses(self.tables)
            self._claim(
                "kube-apiserver",
                [IpcacheRow(exact(one), identity.KUBE_APISERVER, "kube-apiserver") for one in on_nodes],
            )
        yield from self._take("remote", remote, self._of_remote)
        yield from self._take("pod", pods, self._of_pod)
        yield from self._take("identity", identities, self._of_identity)
        yield from self._take("local", local, self._of_local)
        self._touch_waiting(identities, progress)
        self._whole = self._whole or all(batch.ready for batch in batches[:-1])
        if self._whole:
            self._own.clear()
        # Who knows less may answer first: until all have, what the kernel has from before stands. But nobody
        # has more to say of an address than the pod of this node that holds it.
        touched = self._touched if self._whole else self._own
        while touched:
            prefix = touched.pop()
            with boundary(f"who is behind {prefix}"):
                self._publish(prefix)
            yield
        if self._whole and not self._starting:
            self.tables.ipcache.mark_ready(IPCACHE)

    def _take(
        self, kind: str, batch: Batch[Any], claims_of: Callable[[Any], list[IpcacheRow]]
    ) -> Iterator[None]:
        for change in batch:
            with boundary(f"addresses of {kind} {change.key}"):
                self._claim((kind, change.key), claims_of(change.new))
            yield

    def _touch_waiting(self, identities: Batch[Any], progress: Batch[Any]) -> None:
        """Look again at prefixes of identities that changed, or that policies know now."""
        found: set[str] = set()
        for change in identities:
            found |= self._waiting.get(change.key, set())  # type: ignore[call-overload]
        row = self.tables.progress.get(POLICIES) if progress else None
        while row is not None and self._reaching and self._reaching[0][0] <= row.identities:
            revision, number = heappop(self._reaching)
            if self._reached_at.get(number) == revision:
                del self._reached_at[number]
            found |= self._waiting.get(number, set())
        self._touched |= found
        self._own |= found

    def _wait(self, prefix: str, numbers: Sequence[int]) -> None:
        """Look at a prefix again when policies know one of these identities."""
        for number in self._waits.pop(prefix, ()):
            waiting = self._waiting[number]
            waiting.discard(prefix)
            if not waiting:
                del self._waiting[number]
        if numbers:
            self._waits[prefix] = tuple(dict.fromkeys(numbers))
        for number in dict.fromkeys(numbers):
            self._waiting.setdefault(number, set()).add(prefix)
            revision = self.tables.identities.revision_of(number)
            if revision and self._reached_at.get(number) != revision:
                self._reached_at[number] = revision
                heappush(self._reaching, (revision, number))

    # --- what each row claims

    def _of_endpoint(self, row: EndpointRow | None) -> list[IpcacheRow]:
        if row is None or not row.identity:
            return []
        return [
            IpcacheRow(exact(address), row.identity, "endpoint", namespace=row.namespace, pod=row.pod)
            for address in row.addresses
        ]

    def _of_node(self, row: NodeRow | None) -> list[IpcacheRow]:
        if row is None:
            return []
        tunnel = "" if row.local else self._through(row.name, row.cluster)
        number, source = (identity.HOST, "host") if row.local else (identity.REMOTE_NODE, "node")
        cluster = row.cluster
        found = [IpcacheRow(exact(one), number, source, cluster=cluster) for one in row.addresses]
        found += [
            IpcacheRow(exact(one), number, source, tunnel, cluster=cluster) for one in row.router_addresses
        ]
        holds = "pods" if row.local else ""
        found += [
            IpcacheRow(cidr, identity.UNMANAGED, "pod-cidr", tunnel, holds=holds, cluster=cluster)
            for cidr in _pod_cidrs(row)
        ]
        return found

    def _of_local(self, row: LocalAddressRow | None) -> list[IpcacheRow]:
        """What the kernel delivers to the node, whether or not its object names it."""
        return [] if row is None else [IpcacheRow(row.prefix, identity.HOST, "host")]

    def _of_remote(self, row: RemoteEndpointRow | None) -> list[IpcacheRow]:
        if row is None or not row.identity:
            return []
        tunnel = row.node_address if self._tunnel else ""
        return [
            IpcacheRow(
                *(exact(address), row.identity, "remote-endpoint", tunnel),
                namespace=row.namespace,
                pod=row.name,
                cluster=row.cluster,
            )
            for address in row.addresses
        ]

    def _of_pod(self, row: PodRow | None) -> list[IpcacheRow]:
        """What is known of a pod before, or without, an endpoint: that it is one."""
        if row is None or row.host_network or row.phase in FINISHED:
            return []
        tunnel = self._through(row.node)
        return [
            IpcacheRow(
                exact(address), identity.UNMANAGED, "pod", tunnel, namespace=row.namespace, pod=row.name
            )
            for address in row.addresses
        ]

    def _of_identity(self, row: Any) -> list[IpcacheRow]:
        prefix = prefixes.prefix(row) if row is not None else ""
        if not prefix:
            return []
        source = "kube-apiserver" if "reserved:kube-apiserver" in row.labels else "cidr"
        return [IpcacheRow(prefix, row.number, source)]

    def _through(self, node: str, cluster: str = OWN) -> str:
        """The address that packets for `node` are sent to in a tunnel; empty without tunnels."""
        row = self.tables.nodes.get((cluster, node)) if self._tunnel else None
        return row.addresses[0] if row is not None and not row.local and row.addresses else ""

    # --- who wins

    def _claim(self, claimant: Hashable, rows: Iterable[IpcacheRow]) -> None:
        """What `claimant` says from now on, instead of what it said."""
        wanted = {row.prefix: row for row in rows if family(row.prefix) in self._families}
        for prefix in self._claims.pop(claimant, ()):
            if prefix not in wanted:
                self._say(prefix, claimant, None)
        for prefix, row in wanted.items():
            self._say(prefix, claimant, row)
        if wanted:
            self._claims[claimant] = tuple(wanted)

    def _say(self, prefix: str, claimant: Hashable, row: IpcacheRow | None) -> None:
        claims = self._claims_of(prefix)
        before = claims.pop(claimant, None)
        if before == row:
            return
        if row is not None:
            claims[claimant] = row
        if len(claims) > 1:
            self._claimed[prefix] = claims
        elif claims:
            (self._claimed[prefix],) = claims.items()
        else:
            del self._claimed[prefix]
        self._touched.add(prefix)
        said = [one for one in (before, row) if one is not None]
        if any(one.source == "cidr" for one in said):
            named = any(one.source == "cidr" for one in claims.values())
            (self._named.add if named else self._named.discard)(prefix)
        if any(map(_is_ground, said)):
            self._ground(prefix)

    def _claims_of(self, prefix: str) -> dict[Hashable, IpcacheRow]:
        """Claimant → row, a copy."""
        claims = self._claimed.get(prefix, {})
        return dict(claims) if isinstance(claims, dict) else {claims[0]: claims[1]}

    def _within(self, row: IpcacheRow) -> IpcacheRow:
        """A rule may name a part of a prefix of which it is known who is there: that stays so."""
        if row.source != "cidr":
            return row
        network = ipaddress.ip_network(row.prefix)
        grounds = [one for one in self._grounds if one.version == network.version and _holds(one, network)]
        if not grounds:
            return row
        ground = self._grounds[max(grounds, key=lambda one: one.prefixlen)]
        if ground.identity == identity.HOST:
            return msgspec.structs.replace(row, identity=ground.identity, source=ground.source)
        return msgspec.structs.replace(row, holds=ground.holds)

    def _ground(self, prefix: str) -> None:
        """Note whether all of `prefix` is the node's or holds only what other tables name, as the first of
        those says who say so. Concerns what rules name in it."""
        network = ipaddress.ip_network(prefix)
        grounds = filter(_is_ground, self._claims_of(prefix).values())
        row = min(grounds, key=rank, default=None)
        if self._grounds.get(network) == row:
            return
        if row is None:
            del self._grounds[network]
        else:
            self._grounds[network] = row
        for other in self._named:
            within = ipaddress.ip_network(other)
            if within.version == network.version and _holds(network, within):
                self._touched.add(other)

    def _publish(self, prefix: str) -> None:
        claims = self._claims_of(prefix)
        current = self.tables.ipcache.get(prefix)
        self._wait(prefix, [])
        self._starting.discard(prefix)
        unknown = []
        chosen = None
        for row in self.overlaps.settle(prefix, sorted(claims.values(), key=rank)):
            if policies_know(self.tables, row.identity):
                chosen = self._within(row)
                break
            unknown.append(row.identity)
            if current is not None and _owner(current) == _owner(row):
                chosen = current  # the same pod or prefix: its old identity until the new one is known
                break
            if not self.tables.ipcache.ready and row.identity in self.tables.identities:
                self._starting.add(prefix)  # at a start the kernel may have it; nobody else's say counts
                break
        self._wait(prefix, unknown)
        if chosen is None:
            self.tables.ipcache.delete(prefix)
        else:
            self.tables.ipcache.put(chosen)


def _is_ground(row: IpcacheRow) -> bool:
    """Whether what is said of the whole prefix holds for any part of it."""
    return bool(row.holds) or (row.identity == identity.HOST and not is_exact(row.prefix))


def _pod_cidrs(row: NodeRow) -> list[str]:
    return [str(ipaddress.ip_network(prefix, strict=False)) for prefix in row.pod_cidrs]


def _holds(wide: IPNetwork, narrow: IPNetwork) -> bool:
    """Of one family."""
    shift = wide.max_prefixlen - wide.prefixlen
    return wide.prefixlen <= narrow.prefixlen and (
        int(wide.network_address) >> shift == int(narrow.network_address) >> shift
    )


def _owner(row: IpcacheRow) -> tuple[str, str, str, str]:
    return row.source, row.namespace, row.pod, row.cluster
