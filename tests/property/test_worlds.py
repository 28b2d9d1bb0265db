"""In random small worlds, what the kernel is given says what the language says."""

import os
import random

import pytest
from tests.property.worlds import PROXIES, Compiled, Packet, World

from podwire.abi.enums import PolicyVerdict
from podwire.model.decide import Decision, Outcome
from podwire.model.rule import Direction

WORLDS = 2_500
PACKETS = 8
BATCHES = 4
SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)

VERDICTS = {
    Outcome.ALLOWED: PolicyVerdict.ALLOW,
    Outcome.UNRESTRICTED: PolicyVerdict.ALLOW,
    Outcome.DENIED: PolicyVerdict.DENY,
    Outcome.DEFAULT_DENIED: PolicyVerdict.DEFAULT_DENY,
}


def reasons(compiled: Compiled, decision: Decision, packet: Packet) -> set[int]:
    """Rule numbers that are right for a decision; any where the default denied."""
    if decision.outcome is Outcome.UNRESTRICTED:
        return {0}
    return {compiled.number_of(rule, clause) for rule, clause in decision.because if clause is not None}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_tables_say_what_the_rules_say(batch: int) -> None:
    print(f"PODWIRE_SEED={SEED}")
    for number in range(WORLDS):
        world = World.of(SEED + batch * WORLDS + number)
        compiled = Compiled(world)
        for _ in range(PACKETS):
            packet = world.packet()
            decision = world.expected(packet)
            cell = compiled.verdict(packet)
            assert cell.verdict == VERDICTS[decision.outcome], (world.seed, world.objects, packet, decision)
            assert cell.redirect == decision.redirect, (world.seed, world.objects, packet, decision)
            if decision.outcome is not Outcome.DEFAULT_DENIED:
                assert cell.rule in reasons(compiled, decision, packet), (world.seed, packet, decision)


def test_a_policy_reaches_no_other_namespace() -> None:
    """What an object of one namespace says changes nothing for the pods of another."""
    print(f"PODWIRE_SEED={SEED}")
    for number in range(1_000):
        world = World.of(SEED + number)
        others = [rule for rule in world.rules if rule.origin.namespace != "a"]
        for pod in world.pods:
            if pod.namespace == "a":
                continue
            for rule in world.rules:
                if rule.origin.namespace == "a":
                    assert not rule.subject.matches(pod.labels)
        every = world.rules
        for _ in range(10):
            packet = world.packet()
            if packet.pod.namespace == "a":
                continue
            world.rules = every
            with_a = world.expected(packet)
            world.rules = tuple(others)
            assert world.expected(packet) == with_a


def test_worlds_are_worth_asking() -> None:
    """The generator makes every outcome, in both directions, often enough to mean something."""
    found: dict[tuple[Outcome, Direction], int] = {}
    proxies: dict[int, int] = {}
    for number in range(300):
        world = World.of(number)
        for _ in range(20):
            packet = world.packet()
            decision = world.expected(packet)
            key = (decision.outcome, packet.direction)
            found[key] = found.get(key, 0) + 1
            proxies[decision.redirect] = proxies.get(decision.redirect, 0) + 1
    assert all(proxies.get(number, 0) > 15 for number in PROXIES), proxies
    assert all(found.get((outcome, direction), 0) > 60 for outcome in Outcome for direction in Direction), (
        found
    )
