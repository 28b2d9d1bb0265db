"""Rules to policy entries, for all endpoints that the same rules select.

In the walk: identity.select has turned selectors into identities; policy.compute keeps what is made
here in tables, and datapath.write puts those into the kernel, which asks in two stages (see
bpf/abi/policy.h): which class of peers is this identity, and what holds for that class on this port.

An identity's class is the set of clauses that name it. Policies and classes are numbered by content,
so a row never changes its meaning; identities that come and go cost a row each.

Pure: no I/O, no clock. The same arguments give the same numbers and entries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, TypeVar

import msgspec

from podwire.abi.enums import PolicyClass
from podwire.model.implied import LOCALHOST, enforced, restricts
from podwire.model.labels import Labels
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import Selector, shared
from podwire.policy import number
from podwire.policy.flatten import ANY_PROTOCOL, Cell, Meaning, Node, flatten, nodes

# Name of a port → (protocol, port): of the endpoint itself, or of all pods that have one identity.
NamedPorts = Mapping[str, frozenset[tuple[int, int]]]
# What the port names in egress clauses mean for one peer: sorted (name, protocol, port).
Resolution = tuple[tuple[str, int, int], ...]


T = TypeVar("T")
Steps = Generator[None, None, T]  # work in pieces: after each one, others may have their turn


def whole(steps: Steps[T]) -> T:
    """All of it, at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            made: T = done.value
            return made


class Term(NamedTuple):
    """A clause made ready: what can be known of it without knowing identities or endpoints."""

    rule: int  # RuleRow.number
    deny: bool
    peers: tuple[Selector, ...] | None
    ports: tuple[Ports, ...] | None
    meaning: Meaning  # of the ports that are numbers
    names: tuple[tuple[str, int], ...]  # (name, protocol) of those that are not
    redirect: int = 0

    @property
    def content(self) -> tuple[object, ...]:
        """What it says, for numbers. Without a proxy none is said: what is in kernels has its number."""
        proxy = (self.redirect,) if self.redirect else ()
        return self.rule, self.deny, self.peers, self.ports, *proxy

    def resolved(self, known: NamedPorts) -> Meaning:
        """With the ports that names stand for."""
        found = (*(self.meaning.nodes or ()), *named_nodes(self.names, known))
        return self.meaning._replace(nodes=found)


class Prepared(NamedTuple):
    """A rule made ready, once for all endpoints it selects. `content` is equal for equal rules."""

    rule: Rule
    subject: Selector
    content: bytes
    terms: dict[Direction, tuple[Term, ...]]
    enforced: frozenset[Direction]  # it says something about these directions
    restricts: frozenset[Direction]  # and what it does not allow in these is denied


def select(prepared: Iterable[Prepared], labels: Labels) -> list[Prepared]:
    """The rules that select an endpoint with `labels`: each subject is asked, once."""
    matching: dict[Selector, bool] = {}
    chosen = []
    for one in prepared:
        matches = matching.get(one.subject)
        if matches is None:
            matches = matching[one.subject] = one.subject.matches(labels)
        if matches:
            chosen.append(one)
    return chosen


def obeyed(selecting: Sequence[Prepared], localhost: Prepared | None = None) -> tuple[Prepared, ...]:
    """The rules that an endpoint obeys which these select: with the one that nobody wrote."""
    if any(Direction.INGRESS in one.enforced for one in selecting):
        return (*selecting, localhost or PREPARED_LOCALHOST)
    return tuple(selecting)


def rule_content(origin: Origin, direction: Direction, effect: Effect, spec: int, index: int) -> bytes:
    """What the number of a clause's RuleRow is made of."""
    return msgspec.msgpack.encode(
        (origin.kind, origin.namespace, origin.name, direction, effect, spec, index)
    )


def default_deny_content(origins: Iterable[Origin], direction: Direction) -> bytes:
    """What the number of a default deny's RuleRow is made of."""
    names = sorted((origin.kind, origin.namespace, origin.name) for origin in origins)
    return msgspec.msgpack.encode(("default deny", direction, names))


def prepare(rule: Rule, number_of: Callable[[Clause], int]) -> Prepared:
    """Make `rule` ready; `number_of` gives its clauses their RuleRow numbers."""
    terms: dict[Direction, list[Term]] = {direction: [] for direction in Direction}
    for clause in rule.clauses:
        terms[clause.direction].append(_term(clause, number_of(clause), always=rule is LOCALHOST))
    frozen = {direction: tuple(found) for direction, found in terms.items()}
    said = (
        (rule.origin.kind, rule.origin.namespace, rule.origin.name, rule.index),
        [(enforced(rule, one), restricts(rule, one)) for one in Direction],
        [(one, [term.content for term in frozen[one]]) for one in Direction],
    )
    return Prepared(
        rule,
        shared(rule.subject),
        number.digest(msgspec.msgpack.encode(said)),
        frozen,
        frozenset(one for one in Direction if enforced(rule, one)),
        frozenset(one for one in Direction if restricts(rule, one)),
    )


def _term(clause: Clause, rule: int, *, always: bool) -> Term:
    deny = clause.effect is Effect.DENY
    redirect = 0 if deny or always else clause.redirect
    peers = None if clause.peers is None else tuple(map(shared, clause.peers))
    if clause.ports is None:
        meaning = Meaning(rule, deny, peers is not None, None, always, redirect)
        return Term(rule, deny, peers, None, meaning, (), redirect)
    numeric = [
        node for one in clause.ports if not one.name for node in nodes(one.protocol, one.first, one.last)
    ]
    names = [
        (one.name, protocol)
        for one in clause.ports
        if one.name
        for protocol in ((one.protocol,) if one.protocol else ANY_PROTOCOL)
    ]
    meaning = Meaning(rule, deny, peers is not None, tuple(dict.fromkeys(numeric)), redirect=redirect)
    return Term(rule, deny, peers, clause.ports, meaning, tuple(names), redirect)


def _implied_number(clause: Clause) -> int:
    return number.of(rule_content(LOCALHOST.origin, clause.direction, clause.effect, 0, clause.index))


PREPARED_LOCALHOST = prepare(LOCALHOST, _implied_number)


def named_nodes(names: Iterable[tuple[str, int]], known: NamedPorts) -> Iterator[Node]:
    """Nodes of the port names that somebody has."""
    for name, protocol in names:
        for of_protocol, port in sorted(known.get(name, ())):
            if of_protocol == protocol:
                yield (protocol, port, 16)


_NO_NAMES: Resolution = ()


class Assigned(NamedTuple):
    """Identity → class, and what each class is."""

    peers: dict[int, int]
    classes: dict[int, tuple[int, Resolution]]


class Side:
    """One direction of a policy: from masks of clauses to classes and their cells.

    A mask is a number with one bit per clause. `selectors` gives for each selector the mask of the
    clauses that use it; clauses for whoever are in `anyone` and count in every class.
    """

    __slots__ = (
        "_classes",
        "_named_numbers",
        "_numbers",
        "anyone",
        "default_rule",
        "enforced",
        "names",
        "restricted",
        "selectors",
        "terms",
    )

    def __init__(
        self, rules: Sequence[Prepared], direction: Direction, own: NamedPorts, default_rule: int
    ) -> None:
        self.enforced = any(direction in one.enforced for one in rules)
        self.restricted = any(direction in one.restricts for one in rules)
        self.default_rule = default_rule if self.restricted else 0
        self.selectors: dict[Selector, int] = {}
        self.anyone = 0
        self.names: frozenset[str] = frozenset()
        self.terms = [term for one in rules for term in one.terms[direction]]
        self._numbers: dict[int, int] = {}  # mask → class
        self._named_numbers: dict[tuple[int, Resolution], int] = {}
        self._classes: dict[int, tuple[int, Resolution]] = {}
        selectors = self.selectors
        for position, term in enumerate(self.terms):
            bit = 1 << position
            if term.names:
                self._name(position, term, own if direction is Direction.INGRESS else None)
            if term.peers is None:
                self.anyone |= bit
            else:
                for selector in term.peers:
                    selectors[selector] = selectors.get(selector, 0) | bit

    def _name(self, position: int, term: Term, own: NamedPorts | None) -> None:
        """Resolve port names that are the endpoint's own; those of peers wait for the peer."""
        if own is None:
            self.names |= {name for name, _ in term.names}
        else:
            self.terms[position] = term._replace(meaning=term.resolved(own), names=())

    def members(self, selected: Callable[[Selector], Set[int]]) -> Steps[dict[int, int]]:
        """Identity → mask of the clauses that name it, for all that any clause names."""
        masks: dict[int, int] = {}
        for selector, mask in self.selectors.items():
            yield
            identities = selected(selector)
            if masks.keys().isdisjoint(identities):
                masks.update(dict.fromkeys(identities, mask))
            else:
                for identity in identities:
                    masks[identity] = masks.get(identity, 0) | mask
        return masks

    def resolution(self, named: NamedPorts | None) -> Resolution:
        """What the port names in this side's clauses mean for a peer with these named ports."""
        if not self.names or not named:
            return ()
        return tuple(sorted((name, *one) for name in self.names for one in named.get(name, ())))

    def class_of(self, mask: int, resolution: Resolution, salt: int = 0) -> int:
        """The class's number; raises Collision if another class has it."""
        if resolution:
            known = self._named_numbers.get((mask, resolution))
        else:
            known = self._numbers.get(mask) if mask else int(PolicyClass.ANY)
        if known is not None:
            return known
        content = msgspec.msgpack.encode((sorted([term.rule for term in self.chosen(mask)]), resolution))
        made = number.of(content, salt)
        if self._classes.setdefault(made, (mask, resolution)) != (mask, resolution):
            raise Collision(made)
        if resolution:
            self._named_numbers[mask, resolution] = made
        else:
            self._numbers[mask] = made
        return made

    def mask_of(self, peer_class: int) -> int:
        """The clauses that name the identities of a class."""
        return self._classes[peer_class][0] if peer_class else 0

    def chosen(self, mask: int) -> list[Term]:
        """The clauses of a mask, in order."""
        terms = self.terms
        return [terms[position] for position in bits(mask)]

    def cells(self, mask: int, resolution: Resolution) -> tuple[Cell, ...]:
        """What holds for a class, for each protocol and port."""
        chosen = self.chosen(mask | self.anyone)
        if self.names:
            named = _by_name(resolution)
            meanings = [term.resolved(named) if term.names else term.meaning for term in chosen]
        else:
            meanings = [term.meaning for term in chosen]
        return flatten(meanings, self.restricted, self.default_rule)

    def assign(
        self, selected: Callable[[Selector], Set[int]], named: Mapping[int, NamedPorts], salt: int = 0
    ) -> Steps[Assigned]:
        """The class of every identity that some clause names. Raises Collision."""
        masks = yield from self.members(selected)
        if not self.names:
            # Identities of the same selectors share the very object: told apart by it, not by its bits.
            distinct = {id(mask): mask for mask in masks.values()}
            numbers: dict[int, int] = {}
            for place, mask in distinct.items():
                numbers[place] = self.class_of(mask, _NO_NAMES, salt)
                yield
            classes = {numbers[place]: (mask, _NO_NAMES) for place, mask in distinct.items()}
            return Assigned({one: numbers[id(mask)] for one, mask in masks.items()}, classes)
        peers: dict[int, int] = {}
        classes = {}
        for identity, mask in (dict.fromkeys(named, 0) | masks).items():
            resolution = self.resolution(named.get(identity))
            made = self.class_of(mask, resolution, salt)
            if made:
                peers[identity] = made
                classes[made] = (mask, resolution)
        return Assigned(peers, classes)


def _by_name(resolution: Resolution) -> NamedPorts:
    known: dict[str, set[tuple[int, int]]] = {}
    for name, protocol, port in resolution:
        known.setdefault(name, set()).add((protocol, port))
    return {name: frozenset(found) for name, found in known.items()}


class Collision(Exception):
    """Two classes of one policy came to the same number: the policy needs another salt."""


def bits(mask: int) -> Iterator[int]:
    """Positions of the bits that are set, ascending."""
    if mask.bit_length() <= 64 or mask.bit_count() <= 8:
        while mask:
            low = mask & -mask
            yield low.bit_length() - 1
            mask ^= low
        return
    text = bin(mask)[:1:-1]  # lowest bit first: one search per bit, not one subtraction of the whole
    position = text.find("1")
    while position >= 0:
        yield position
        position = text.find("1", position + 1)


class Policy:
    """What a set of rules says, ready for identities. `content` is equal for equal policies."""

    __slots__ = ("content", "default_rules", "number", "own", "rules", "salt", "sides")

    def __init__(
        self,
        rules: Sequence[Prepared],
        own: NamedPorts,
        default_rules: Mapping[Direction, int],
        *,
        salt: int = 0,
    ) -> None:
        self.rules = tuple(rules)
        self.own = own
        self.default_rules = dict(default_rules)
        self.content = policy_content(rules, own, default_rules)
        self.salt = salt
        self.number = number.of(self.content, salt)
        self.sides = {
            direction: Side(rules, direction, own, default_rules.get(direction, 0)) for direction in Direction
        }

    def enforced(self, direction: Direction) -> bool:
        return self.sides[direction].enforced

    def tabulate(
        self,
        selected: Callable[[Selector], Set[int]],
        named: Mapping[int, NamedPorts] | None = None,
    ) -> Tabulated:
        """All of it at once. Raises Collision."""
        made = Tabulated({}, {})
        for direction, side in self.sides.items():
            if not side.enforced:
                continue
            made.cells[direction, PolicyClass.ANY] = side.cells(0, ())
            assigned = whole(side.assign(selected, named or {}, self.salt))
            made.peers[direction] = assigned.peers
            for peer_class, (mask, resolution) in assigned.classes.items():
                made.cells[direction, peer_class] = side.cells(mask, resolution)
        return made


class Tabulated(NamedTuple):
    """A policy as the kernel is given it: direction → identity → class, (direction, class) → cells."""

    peers: dict[Direction, dict[int, int]]
    cells: dict[tuple[Direction, int], tuple[Cell, ...]]


def policy_content(
    rules: Iterable[Prepared], own: NamedPorts, default_rules: Mapping[Direction, int]
) -> bytes:
    """What a policy's number is made of: its rules, and the endpoint's named ports they use."""
    found = list(rules)
    used = {name for one in found for term in one.terms[Direction.INGRESS] for name, _ in term.names}
    ports = sorted((name, *one) for name in used for one in own.get(name, ()))
    said = msgspec.msgpack.encode((ports, sorted(default_rules.items())))
    return number.digest(b"".join(one.content for one in found) + said)
