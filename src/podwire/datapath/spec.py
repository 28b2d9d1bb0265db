"""What there is to say of one map, said once: what it holds, and how it is kept equal to tables.

`catalogue` has a file of these for each header that declares maps. From them the writer knows what to write,
in which order and what a lack of it means; the programs' loader, the harness of the tests, status and the
reference page know the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, IntEnum
from typing import Any

import msgspec

from podwire.bpf.map import Codec
from podwire.datapath.epochs import POLICY, Asks
from podwire.datapath.mirror import Mirror, Target
from podwire.datapath.rows import Entries
from podwire.state.views import ReadTables

ON_DEVICES = ("lxc", "host", "overlay")  # objects that see packets
EVERYWHERE = (*ON_DEVICES, "sock")


class Step(IntEnum):
    """When in its turn the writer writes a map; it removes in the opposite order.

    What is pointed at is there before what points at it, and goes after it.
    """

    POLICIES = 1  # what a policy says to a class
    PEERS = 2  # who is of which class
    ADDRESSES = 3  # who is behind an address
    BACKENDS = 4
    SETS = 5  # of backends, and what of a Service is found by number
    FRONTENDS = 6
    ENDPOINTS = 7  # a pod can talk the moment its own row is there


class Lack(Enum):
    """What an entry that is wanted and not in the kernel lets through. Why: docs/decisions/full-maps.md."""

    NOTHING = "nothing"  # who does not find it drops
    JUDGED = "judged"  # `missing` works out to which endpoints it matters
    ANYTHING = "anything"  # nobody knows: nothing passes any endpoint until it is there


class Told(Enum):
    """Who tells the mirror of a map that a row changed."""

    AT_ONCE = "at once"
    LEAVING = "leaving"  # one that goes stays while an endpoint obeys its policy
    SWITCHING = "switching"  # with the policy that the endpoint is switched to


class Setting(msgspec.Struct, frozen=True):
    """What the entries of a row depend on beside the row."""

    tables: ReadTables
    node: str  # this one's name


class Rows(msgspec.Struct, frozen=True):
    """The rows of one table in one map.

    `entries` gives what one row stands for; `together`, where an entry is made of several rows, what all do.
    Of rows that want the same entry those that `yields` have it only while no other does. `looks_at` are
    tables that the entries depend on as well.
    """

    table: str
    entries: Callable[[Any, Setting], Entries]
    yields: bool = False
    told: Told = Told.AT_ONCE
    together: Callable[[Iterable[Any]], Entries] | None = None
    looks_at: tuple[str, ...] = ()

    def all(self, setting: Setting) -> Iterator[Entries]:
        """What the rows that are in the table stand for."""
        table = setting.tables.named(self.table)
        if self.together is not None:
            yield self.together(table)
        else:
            yield from (self.entries(row, setting) for row in table)


def each(table: str, entries: Callable[[Any], Entries], *, yields: bool = False) -> Rows:
    """Rows that say all there is to say."""
    return Rows(table, lambda row, setting: entries(row), yields=yields)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """How the writer keeps a map. What is not said is the safe side.

    `truthful`: no entry is better than a wrong one, so one that cannot be replaced is removed.
    `asks` is the word of map podwire_state that what connections remember of a key hangs on, or what
    gives it for a key; None = they remember nothing of it. `mirror` makes the mirror, if the plain one
    does not do.
    """

    step: Step
    rows: tuple[Rows, ...]
    lack: Lack = Lack.ANYTHING
    truthful: bool = True
    asks: Asks = POLICY
    mirror: Callable[[str, Target, ReadTables], Mirror] | None = None


class MapSpec(msgspec.Struct, frozen=True):
    """One map. `size` names the option of AgentConfig that sizes it and how often, "" = fixed in bpf/lib.

    One that is `written` gets a bigger one in its place when it is full, up to map-growth-max; others
    are the programs' own.
    """

    name: str
    key: Codec[Any] | type[Any]
    value: Codec[Any] | type[Any]
    help: str
    objects: tuple[str, ...]  # that declare it
    size: str = ""
    times: int = 1
    title: str = ""  # what Cilium's clients call it, who are told its size
    written: Written | None = None

    @property
    def layout(self) -> int:
        """A number of what its bytes mean: the kernel only knows how many they are."""
        told = [
            str(kind.size) if isinstance(kind, Codec) else f"{kind.NAME} {kind.LAYOUT.format} {kind.OFFSETS}"
            for kind in (self.key, self.value)
        ]
        return zlib.crc32(" → ".join(told).encode())

    @property
    def tables(self) -> tuple[str, ...]:
        """What it is written from; empty = by the programs, or by hand."""
        return tuple(rows.table for rows in self.written.rows) if self.written is not None else ()

    def mirror(self, target: Target, tables: ReadTables) -> Mirror:
        """What keeps it equal to `tables`."""
        assert self.written is not None, f"nobody writes {self.name}"
        if self.written.mirror is not None:
            return self.written.mirror(self.name, target, tables)
        closes = self.written.lack is Lack.ANYTHING
        return Mirror(self.name, target, truthful=self.written.truthful, closes=closes)

    def all_entries(self, setting: Setting) -> dict[bytes, bytes]:
        """What the tables want of it now: all entries."""
        found: dict[bytes, bytes] = {}
        rows = self.written.rows if self.written is not None else ()
        for one in sorted(rows, key=lambda one: not one.yields):  # the others have the last word
            for entries in one.all(setting):
                found |= entries
        return found


def in_order(specs: Iterable[MapSpec]) -> dict[Step, list[MapSpec]]:
    """Those that are written, by step. What closes endpoints comes before them: they are opened by one write,
    when it is known that it is whole."""
    steps: dict[Step, list[MapSpec]] = {step: [] for step in Step}
    for spec in specs:
        if spec.written is not None:
            late = spec.written.step is Step.ENDPOINTS and spec.written.lack is Lack.ANYTHING
            assert not late, f"{spec.name} decides about endpoints, and is written with them"
            steps[spec.written.step].append(spec)
    return steps
