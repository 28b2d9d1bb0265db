"""Identities of prefixes: every CIDR that a rule names, or excepts, has one on this node.

In the walk: sources have parsed the rules; the numbers go into table identities, and identity.ipcache
puts the prefixes beside them. An address has the identity of the longest prefix it is in, so a rule
about a wider prefix selects the identities of all narrower ones (`podwire.model.selector`).

A number that is not wanted any more is first marked `retired`: the ipcache lets go of it, and only
then it is removed, so no packet is ever of an identity that policies have forgotten. What was in the
kernel before a restart keeps its number.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from podwire.base.addresses import exact, family
from podwire.base.aio import boundary
from podwire.base.errors import PodwireError
from podwire.identity import apiserver
from podwire.model.identity import LOCAL_FIRST, LOCAL_LAST
from podwire.model.labels import Labels, canonical, cidr, prefix_of
from podwire.model.rule import Rule
from podwire.state.table import Batch, Change, Table, Watch
from podwire.state.tables import (
    IdentityRow,
    IpcacheRow,
    NodeRow,
    PodRow,
    PolicyRow,
    RemoteEndpointRow,
    SliceRow,
)
from podwire.state.views import ReadTables
from podwire.state.writers import PREFIXES

LOCAL, RETIRED = "local", "retired"
TOO_MANY = f"rules name more prefixes than there are numbers for ({LOCAL_LAST - LOCAL_FIRST + 1:,})"
log = logging.getLogger(__name__)


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def identities(self) -> Table[IdentityRow]: ...


class Prefixes:
    """The local identities of one node. `restored` is prefix → number of an earlier life."""

    def __init__(
        self, tables: Written, *, ipv4: bool, ipv6: bool, restored: Mapping[str, int] | None = None
    ) -> None:
        self.tables = tables
        self._world = {4: "world-ipv4" if ipv6 else "world", 6: "world-ipv6"}
        self._families = {version for version, on in ((4, ipv4), (6, ipv6)) if on}
        self._restored = {
            prefix: number
            for prefix, number in (restored or {}).items()
            if LOCAL_FIRST <= number <= LOCAL_LAST
        }
        self._last = max(self._restored.values(), default=LOCAL_FIRST - 1)
        self._users: Counter[str] = Counter()
        self._apiservers: frozenset[str] = frozenset()
        self._numbers: dict[str, int] = {}  # of the prefixes that are wanted
        self._freed = False  # a number may be free since it was last asked
        self._unnumbered: dict[str, str] = {}  # prefix that is wanted → why it has no number

    @property
    def error(self) -> str:
        """What is wrong; empty = every prefix has its number. A rule selects nobody by one without."""
        if not self._unnumbered:
            return ""
        first, why = next(iter(self._unnumbered.items()))
        return f"{len(self._unnumbered)} prefixes are not known to policies, first {first}: {why}"

    def watch(self) -> Watch:
        """What `step` reads, in its order."""
        tables = self.tables
        return Watch(
            *(tables.policies, tables.slices, tables.nodes, tables.ipcache),
            *(tables.pods, tables.remote_endpoints),
        )

    def step(self, *batches: Batch[Any]) -> None:
        """Number what is wanted now, retire and remove what is not."""
        for _ in self.steps(*batches):
            pass

    def steps(
        self,
        policies: Batch[PolicyRow],
        slices: Batch[SliceRow],
        nodes: Batch[NodeRow],
        ipcache: Batch[IpcacheRow],
        pods: Batch[PodRow],
        remote: Batch[RemoteEndpointRow],
    ) -> Iterator[None]:
        """`step`, in pieces: after each one, others may have their turn."""
        concerned: set[str] = set()
        for change in policies:
            with boundary(f"prefixes of policy {change.key}"):
                concerned |= self._count(change)
            yield
        # Who is a pod is told last, the pods of other nodes after all that is waited for at a start.
        by_pods = apiserver.concerned_by_pods(self.tables, pods, remote)
        if nodes or by_pods or apiserver.concerned(slices):
            _, outside = apiserver.addresses(self.tables)
            found = frozenset(exact(address) for address in outside if family(address) in self._families)
            concerned |= found ^ self._apiservers
            self._apiservers = found
        for prefix in sorted(concerned):
            with boundary(f"the identity of {prefix}"):
                self._settle(prefix)
            yield
        self._forget(entry.old for entry in ipcache if entry.old is not None)
        for prefix in sorted(self._unnumbered) if self._freed else ():
            self._settle(prefix)
            yield
        self._freed = False
        if policies.ready and slices.ready and nodes.ready:  # all that names prefixes has been seen
            self.tables.identities.mark_ready(PREFIXES)

    def _count(self, change: Change[PolicyRow]) -> set[str]:
        """Prefixes that a changed policy names, or named."""
        new = self._named(change.new.rules if change.new else ())
        old = self._named(change.old.rules if change.old else ())
        self._users.update(new)
        self._users.subtract(old)
        return {*new, *old}

    def _named(self, rules: Iterable[Rule]) -> list[str]:
        """Prefixes of rules, as often as they are named. All of a family is the world, and has a number."""
        return [
            prefix
            for rule in rules
            for one in rule.prefixes
            for prefix in (one.cidr, *one.excepted)
            if not prefix.endswith("/0") and family(prefix) in self._families
        ]

    def _labels(self, prefix: str) -> Labels:
        found = {cidr(prefix), f"reserved:{self._world[family(prefix)]}"}
        if prefix in self._apiservers:
            found.add("reserved:kube-apiserver")
        return canonical(found)

    def _settle(self, prefix: str) -> None:
        """Make the identities of `prefix` what they should be."""
        if not self._users[prefix]:
            del self._users[prefix]
        wanted = prefix in self._users or prefix in self._apiservers
        number = self._numbers.get(prefix)
        known = self.tables.identities.get(number) if number is not None else None
        if known is not None and (not wanted or known.labels != self._labels(prefix)):
            del self._numbers[prefix]
            self._freed = True
            self._retire(known, prefix)
        self._unnumbered.pop(prefix, None)
        if wanted and prefix not in self._numbers:
            try:
                number = self._number(prefix)
            except PodwireError as error:  # whoever writes policies must not end the agent with it
                if not self._unnumbered:
                    log.warning("%s: %s", prefix, error)
                self._unnumbered[prefix] = str(error)
                return
            self._numbers[prefix] = number
            self.tables.identities.put(IdentityRow(number, self._labels(prefix), LOCAL))

    def _number(self, prefix: str) -> int:
        """The number these labels have still, had before the restart, or a free one."""
        for row in self.tables.identities.by("labels", self._labels(prefix)):
            if row.source == RETIRED:
                return row.number
        number = self._restored.pop(prefix, None)
        if number is not None and number not in self.tables.identities:
            return number
        if len(self._numbers) > LOCAL_LAST - LOCAL_FIRST:  # all taken: do not look for one, once per prefix
            raise PodwireError(TOO_MANY)
        for _ in range(LOCAL_LAST - LOCAL_FIRST + 1):  # round and round: a number rests before its next use
            self._last = self._last + 1 if self._last < LOCAL_LAST else LOCAL_FIRST
            if self._last not in self.tables.identities:
                return self._last
        raise PodwireError(TOO_MANY)

    def _retire(self, row: IdentityRow, prefix: str) -> None:
        self.tables.identities.put(IdentityRow(row.number, row.labels, RETIRED))
        held = self.tables.ipcache.get(prefix)
        if held is None or held.identity != row.number:
            self.tables.identities.delete(row.number)

    def _forget(self, let_go: Iterable[IpcacheRow]) -> None:
        """Remove the retired identities that the ipcache has let go of."""
        for row in let_go:
            identity = self.tables.identities.get(row.identity)
            held = self.tables.ipcache.get(row.prefix)
            if (
                identity is not None
                and identity.source == RETIRED
                and (held is None or held.identity != row.identity)
            ):
                self.tables.identities.delete(identity.number)
                self._freed = True


def prefix(row: IdentityRow) -> str:
    """The prefix a local identity stands for; empty for others."""
    return prefix_of(row.labels) if row.source == LOCAL else ""
