"""Rules that nobody wrote and that hold all the same."""

from __future__ import annotations

from podwire.model.rule import Clause, Direction, Effect, Origin, Rule
from podwire.model.selector import EVERYTHING, Selector, exists

KIND = "reserved"  # of their origins, where others have the kind of an object

# A node always reaches its own pods, and no rule denies it: the kubelet's probes come from there
# (Cilium's allow-localhost, and what Kubernetes asks of NetworkPolicy). The datapath does not even ask
# policy about what the node itself sends. The name is what Cilium shows.
LOCALHOST = Rule(
    origin=Origin(KIND, "", "allow-localhost-ingress"),
    index=0,
    subject=EVERYTHING,
    clauses=(
        Clause(
            Direction.INGRESS,
            Effect.ALLOW,
            0,
            (Selector((exists("reserved", "host"),)),),
            None,
            "ingress[0]",
        ),
    ),
    default_deny_ingress=False,
    default_deny_egress=False,
    labels=("reserved:io.cilium.policy.derived-from=allow-localhost-ingress",),
)


# What enable-policy=always adds: endpoints that no rule selects are restricted as well.
ALWAYS = Rule(
    origin=Origin(KIND, "", "enable-policy-always"),
    index=0,
    subject=EVERYTHING,
    clauses=(),
    default_deny_ingress=True,
    default_deny_egress=True,
)


def restricts(rule: Rule, direction: Direction) -> bool:
    """Whether what `rule` does not allow in `direction` is denied."""
    return rule.default_deny_ingress if direction is Direction.INGRESS else rule.default_deny_egress


def enforced(rule: Rule, direction: Direction) -> bool:
    """Whether `rule` says anything about `direction`."""
    return restricts(rule, direction) or any(clause.direction is direction for clause in rule.clauses)
