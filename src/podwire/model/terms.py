"""What a set of labels can be found by, and what of it a selector asks: the words of an index.

Selectors against label sets is a product of two big numbers. With each label set listed under its terms
and each selector taken apart into terms, whoever comes on one side meets only those of the other side that
it can concern, and a selection is an intersection of lists that are there.
"""

from __future__ import annotations

from collections.abc import Hashable, Set

from podwire.model.labels import NAMESPACE, Labels, covering, network, values
from podwire.model.selector import Operator, Requirement, Selector

Term = Hashable
EVERY: Term = "every"  # the term of selectors that need no label


def own_terms(labels: Labels) -> set[Term]:
    """Terms under which a label set is listed: its labels with and without value, its prefixes."""
    found: set[Term] = set()
    for (source, key), value in values(labels).items():
        found.add((source, key, value))
        found.add((source, key))
        if source == "cidr":
            found.update(covering(key))
    return found


def terms(labels: Labels) -> set[Term]:
    """Terms that selectors may ask of a label set: its own, and those of labels of whatever source."""
    found = own_terms(labels)
    for (_, key), value in values(labels).items():
        found.add(("any", key, value))
        found.add(("any", key))
    return found


class Asked:
    """A selector as terms: of each of `some` one must be there, and of `none` not one.

    `needs` is one of `some`. ValueError if it names a prefix that is none.
    """

    __slots__ = ("needs", "none", "nothing", "some")

    def __init__(self, selector: Selector) -> None:
        self.nothing = selector.nothing
        self.needs = needs(selector)
        self.some: list[frozenset[Term]] = []
        none: set[Term] = set()
        for requirement in selector.requirements:
            asked = _asked(requirement)
            if requirement.operator in (Operator.IN, Operator.EXISTS):
                self.some.append(asked)
            else:
                none |= asked
        self.none = frozenset(none)

    def matches(self, found: Set[Term]) -> bool:
        """Whether a label set with these `terms` is selected."""
        if self.nothing or not self.none.isdisjoint(found):
            return False
        for asked in self.some:  # asked often: no generator  # noqa: SIM110
            if asked.isdisjoint(found):
                return False
        return True


def _asked(requirement: Requirement) -> frozenset[Term]:
    """Terms of the labels that meet a requirement; of a negative one, of those that do not."""
    source, key = requirement.source, requirement.key
    valued = requirement.operator in (Operator.IN, Operator.NOT_IN)
    if source == "cidr":  # what is inside a prefix; such labels have no value
        return frozenset((network(key),) if not valued or "" in requirement.values else ())
    return (
        frozenset((source, key, value) for value in requirement.values)
        if valued
        else frozenset([(source, key)])
    )


def needs(selector: Selector) -> frozenset[Term]:
    """Terms of which one must be there to be selected; the fewest label sets, as far as is known.

    A label's value says more than that there is one, and every pod of a namespace has that label.
    """
    best = (9, frozenset((EVERY,)))
    for requirement in selector.requirements:
        if requirement.operator in (Operator.IN, Operator.EXISTS):
            by_value = requirement.operator is Operator.IN
            worth = 0 if requirement.source == "cidr" else 1 if by_value else 3
            worth += requirement.key == NAMESPACE
            best = min(best, (worth, _asked(requirement)), key=lambda choice: choice[0])
    return frozenset() if selector.nothing else best[1]
