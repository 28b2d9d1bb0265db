"""A policy in force, kept up to date identity by identity.

`Live` holds what the kernel was told of one policy: for each direction which identity is in which
class, and which classes have entries. Each change comes out as rows to put and rows to delete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from podwire.abi.enums import PolicyClass
from podwire.model.labels import Labels
from podwire.model.rule import Direction, Origin
from podwire.model.selector import Selector
from podwire.policy.resolve import NamedPorts, Policy, Resolution, Side
from podwire.state.tables import ContainerPort, EntryRow, PeerRow

Selected = Callable[[Selector], frozenset[int]]
Changed = dict[Selector, tuple[frozenset[int], frozenset[int]]]  # selector → identities new, gone


@dataclass
class Difference:
    """Rows to put, and keys of rows to delete once those are in force."""

    entries: list[EntryRow] = field(default_factory=list)
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

    __slots__ = ("_held", "_users", "direction", "masks", "policy", "side")

    def __init__(self, policy: Policy, direction: Direction) -> None:
        self.policy = policy
        self.direction = direction
        self.side: Side = policy.sides[direction]
        self.masks: dict[int, int] = {}
        self._held: dict[int, int] = {}  # identity → class
        self._users: Counter[int] = Counter()  # class → identities in it

    def begin(self, selected: Selected, named: dict[int, NamedPorts], out: Difference) -> None:
        """Everything, for a policy that is new. Raises Collision."""
        if not self.side.enforced:
            return
        self._write(PolicyClass.ANY, 0, (), out)
        assigned = self.side.assign(selected, named, self.policy.salt)
        self.masks, self._held = assigned.masks, assigned.peers
        self._users.update(assigned.peers.values())
        for peer_class, (mask, resolution) in assigned.classes.items():
            self._write(peer_class, mask, resolution, out)
        number, direction = self.policy.number, self.direction
        out.peers += [PeerRow(number, direction, one, made) for one, made in assigned.peers.items()]

    def set(self, identity: int, mask: int, named: NamedPorts | None, out: Difference) -> None:
        """`identity` is named by the clauses of `mask` now. Raises Collision."""
        if mask:
            self.masks[identity] = mask
        else:
            self.masks.pop(identity, None)
        resolution = self.side.resolution(named)
        wanted = self.side.class_of(mask, resolution, self.policy.salt)
        held = self._held.get(identity, PolicyClass.ANY)
        if wanted == held:
            return
        if wanted:
            if not self._users[wanted]:
                self._write(wanted, mask, resolution, out)
            self._users[wanted] += 1
            self._held[identity] = wanted
            out.peers.append(PeerRow(self.policy.number, self.direction, identity, wanted))
        else:
            del self._held[identity]
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

    def peers(self) -> Iterable[int]:
        """Identities that are in a class."""
        return self._held.keys()

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
                    0,
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

    def begin(self, selected: Selected, named: dict[int, NamedPorts]) -> Difference:
        """Everything there is to write. Raises Collision, and nothing is to be written then."""
        out = Difference()
        for half in self.halves.values():
            half.begin(selected, named, out)
        return out

    def selectors(self) -> set[Selector]:
        return {selector for half in self.halves.values() for selector in half.side.selectors}

    def reselect(
        self,
        changed: Changed,
        selected: Selected,
        named: Callable[[int], NamedPorts],
        out: Difference,
    ) -> None:
        """Selectors select others than before. Raises Collision."""
        for half in self.halves.values():
            side = half.side
            wanted: dict[int, int] = {}
            again: set[int] = set()
            for selector, (new, gone) in changed.items():
                bits = side.selectors.get(selector)
                if bits is None:
                    continue
                for identity in new:
                    wanted[identity] = wanted.get(identity, half.masks.get(identity, 0)) | bits
                again |= gone
            for identity in again:
                wanted[identity] = _mask(side, identity, selected)
            for identity, mask in wanted.items():
                half.set(identity, mask, named(identity) if side.names else None, out)

    def rename(self, identities: Iterable[int], named: Callable[[int], NamedPorts], out: Difference) -> None:
        """Named ports of peers are others than before. Raises Collision."""
        for half in self.halves.values():
            if half.side.names:
                for identity in identities:
                    half.set(identity, half.masks.get(identity, 0), named(identity), out)


def _mask(side: Side, identity: int, selected: Selected) -> int:
    mask = 0
    for selector, bits in side.selectors.items():
        if identity in selected(selector):
            mask |= bits
    return mask
