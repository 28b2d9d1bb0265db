"""Rule numbers: what the kernel writes into a flow, and table rules tells back.

A number outlives its rule for a while: flows of the last minutes still carry it, and whoever asks
why they were dropped should be told, also if the rule was deleted meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from podwire.model.rule import Clause, Direction, Origin, Rule
from podwire.policy.number import Registry
from podwire.policy.resolve import default_deny_content, rule_content
from podwire.state.table import Table
from podwire.state.tables import RuleRow

KEPT = 4096  # rows of rules that are gone


class RuleNumbers:
    """Gives numbers to clauses and default denials, and keeps table rules."""

    def __init__(self, table: Table[RuleRow]) -> None:
        self._table = table
        self._registry = Registry()
        self._users: Counter[bytes] = Counter()
        self._gone: dict[bytes, int] = {}  # content → number, oldest first

    def of_clause(self, rule: Rule, clause: Clause) -> int:
        """The number of a clause, from now on in use; see `release`."""
        number = self._take(_content(rule, clause))
        self._table.put(
            RuleRow(
                number=number,
                direction=clause.direction,
                origins=(rule.origin,),
                clause=clause.path.removeprefix("spec."),
                default_deny=False,
                labels=rule.labels,
                log=rule.log,
            )
        )
        return number

    def of_default_deny(self, origins: Iterable[Origin], direction: Direction) -> int:
        """The number of "none of these allows it", from now on in use."""
        named = tuple(sorted(set(origins)))
        number = self._take(default_deny_content(named, direction))
        self._table.put(RuleRow(number, direction, named, "", True))
        return number

    def release(self, rule: Rule) -> None:
        """The numbers of a rule's clauses are used once less."""
        for clause in rule.clauses:
            self._drop(_content(rule, clause))

    def release_default_deny(self, origins: Iterable[Origin], direction: Direction) -> None:
        self._drop(default_deny_content(sorted(set(origins)), direction))

    def _take(self, content: bytes) -> int:
        self._users[content] += 1
        self._gone.pop(content, None)
        return self._registry.take(content)

    def _drop(self, content: bytes) -> None:
        self._users[content] -= 1
        if self._users[content] > 0:
            return
        del self._users[content]
        self._gone[content] = self._registry.take(content)
        while len(self._gone) > KEPT:
            oldest, number = next(iter(self._gone.items()))
            del self._gone[oldest]
            self._registry.release(oldest)
            self._table.delete(number)


def _content(rule: Rule, clause: Clause) -> bytes:
    return rule_content(rule.origin, clause.direction, clause.effect, rule.index, clause.index)
