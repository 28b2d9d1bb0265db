"""A policy in force, kept up to date identity by identity.

`Live` holds what the kernel was told of one policy: for each direction which identity is in which
class, and which classes have entries. Each change comes out as rows to put and rows to delete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from podwire.abi.enums import PolicyClass
from podwire.model.labels import Labels
from podwire.model.rule import Direction, Origin
from podwire.model.selector import Selector
from podwire.policy.resolve import NamedPorts, Policy, Resolution, Side, Steps, bits
from podwire.state.peers import Classes
from podwire.state.tables import ContainerPort, EntryRow, PeerRow

Selected = Callable[[Selector], Set[int]]
# Selector → identities that it may select now and did not, or the other way; None = any.
MovedBy = Mapping[Selector, Set[int] | None]


@dataclass
class Difference:
    """Rows to put, and keys of rows to delete once those are in force."""

    entries: list[EntryRow] = field(default_factory=list)
    begun: list[tuple[int, Direction, Classes]] = field(default_factory=list)  # all peers of new policies
    peers: list[PeerRow] = field(default_factory=list)
    no_peers: list[tuple[int, Direction, int]] = field(default_factory=list)
    no_classes: list[tuple[int, Direction, int]] = field(default_factory=list)  # policy, direction, class
    no_policies: list[Live] = field(default_factory=list)


@dataclass(eq=False)
class Group:
    """Endpoints that are alike to policies: the same labels, the same named ports."""

    labels: Labels
    ports: tuple[ContainerPort, ...]
    endpoints: set[int] = field(default_factory=set)
    live: Live | None = None
    denied_by: dict[Direction, tuple[Origin, ...]] = field(default_factory=dict)


class Half:
    """One direction of a policy in force."""

    __slots__ = ("_held", "_users", "direction", "policy", "side")

    def __init__(self, policy: Policy, direction: Direction) -> None:
        self.policy = policy
        self.direction = direction
        self.side: Side = policy.sides[direction]
        self._held = Classes()
        self._users: Counter[int] = Counter()  # class → identities in it

    def begin(self, selected: Selected, named: dict[int, NamedPorts], out: Difference) -> Iterator[None]:
        """Everything, for a policy that is new. Raises Collision."""
        if not self.side.enforced:
            return
        self._write(PolicyClass.ANY, 0, (), out)
        assigned = yield from self.side.assign(selected, named, self.policy.salt)
        self._held = Classes(assigned.peers)
        self._users.update(assigned.peers.values())
        for peer_class, (mask, resolution) in assigned.classes.items():
            self._write(peer_class, mask, resolution, out)
            yield
        out.begun.append((self.policy.number, self.direction, self._held.copy()))

    def set(self, identity: int, mask: int, named: NamedPorts | None, out: Difference) -> None:
        """`identity` is named by the clauses of `mask` now. Raises Collision."""
        resolution = self.side.resolution(named)
        wanted = self.side.class_of(mask, resolution, self.policy.salt)
        if wanted == self._held.get(identity):
            return
        held = self._held.set(identity, wanted)
        if wanted:
            if not self._users[wanted]:
                self._write(wanted, mask, resolution, out)
            self._users[wanted] += 1
            out.peers.append(PeerRow(self.policy.number, self.direction, identity, wanted))
        else:
            out.no_peers.append((self.policy.number, self.direction, identity))
        if held:
            self._users[held] -= 1
            if not self._users[held]:
                out.no_classes.append((self.policy.number, self.direction, held))

    def wrote(self, peer_class: int) -> bool:
        """Whether the class is in use."""
        return peer_class == PolicyClass.ANY or self._users[peer_class] > 0

    def holds(self, identity: int) -> bool:
        """Whether the identity is in a class."""
        return identity in self._held

    def mask_of(self, identity: int) -> int:
        """The clauses that name an identity, as it was last set."""
        return self.side.mask_of(self._held.get(identity))

    def named_by(self, mask: int) -> Set[int]:
        """Identities that some clause of `mask` names."""
        classes = {one for one in self._users if self.side.mask_of(one) & mask}
        return {identity for identity, peer_class in self._held.items() if peer_class in classes}

    def reselect(self, moved: MovedBy, selected: Selected) -> dict[int, int]:
        """Identity → clauses that name it now, for those that `moved` may concern."""
        wanted: dict[int, int] = {}
        for selector, identities in moved.items():
            named = self.side.selectors.get(selector)
            if named is None:
                continue
            there = selected(selector)
            for identity in there | self.named_by(named) if identities is None else identities:
                mask = wanted.get(identity)
                if mask is None:
                    mask = self.mask_of(identity)
                if identity in there:
                    wanted[identity] = mask | named
                else:
                    lost = mask & named
                    wanted[identity] = mask & ~lost | _still(self.side, identity, lost, selected)
        return wanted

    def _write(self, peer_class: int, mask: int, resolution: Resolution, out: Difference) -> None:
        for cell in self.side.cells(mask, resolution):
            out.entries.append(
                EntryRow(
                    self.policy.number,
                    peer_class,
                    self.direction,
                    cell.protocol,
                    cell.port,
                    cell.bits,
                    cell.verdict,
                    cell.match,
                    cell.redirect,
                    cell.rule,
                )
            )


class Live:
    """A policy in force. `users` are the groups of endpoints that obey it."""

    __slots__ = ("halves", "policy", "users")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.halves = {direction: Half(policy, direction) for direction in Direction}
        self.users: set[Group] = set()

    def begin(self, selected: Selected, named: dict[int, NamedPorts]) -> Steps[Difference]:
        """Everything there is to write. Raises Collision, and nothing is to be written then.

        Who is selected meanwhile or not any more is to be told to `reselect` after.
        """
        out = Difference()
        for half in self.halves.values():
            yield from half.begin(selected, named, out)
        return out

    def selectors(self) -> set[Selector]:
        return {selector for half in self.halves.values() for selector in half.side.selectors}

    def reselect(
        self, moved: MovedBy, selected: Selected, named: Callable[[int], NamedPorts], out: Difference
    ) -> Iterator[None]:
        """Selectors select others than before: identity by identity. Raises Collision."""
        for half in self.halves.values():
            for identity, mask in half.reselect(moved, selected).items():
                half.set(identity, mask, named(identity) if half.side.names else None, out)
                yield

    def rename(
        self, identities: Iterable[int], named: Callable[[int], NamedPorts], out: Difference
    ) -> Iterator[None]:
        """Named ports of peers are others than before. Raises Collision."""
        for half in self.halves.values():
            for identity in identities if half.side.names else ():
                half.set(identity, half.mask_of(identity), named(identity), out)
                yield


def _still(side: Side, identity: int, lost: int, selected: Selected) -> int:
    """Of clauses of which one selector selects an identity no more, those of which another does."""
    mask = 0
    for position in bits(lost):
        if any(identity in selected(peer) for peer in side.terms[position].peers or ()):
            mask |= 1 << position
    return mask
