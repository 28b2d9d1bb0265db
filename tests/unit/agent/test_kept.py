"""A policy changed into a refused one keeps what it said last, also for the next agent."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from podwire.agent.kept import KeptPolicies
from podwire.policy.parse import parse
from podwire.sources.policies import row_of
from podwire.state.table import Change
from podwire.state.tables import PolicyRow

KIND = "CiliumNetworkPolicy"
made = partial(row_of, kind=KIND, parse=parse)


def policy(uid: str = "u1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": KIND,
        "metadata": {"name": "web", "namespace": "prod", "uid": uid, "generation": 1},
        "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, **spec},
    }


GOOD = policy(ingress=[{"fromEndpoints": [{"matchLabels": {"app": "client"}}]}])
REFUSED = policy(egress=[{"toFQDNs": [{"matchName": "a.example"}]}])


def change(old: PolicyRow | None, new: PolicyRow | None) -> Change[PolicyRow]:
    return Change((KIND, "prod", "web"), old, new)


def test_what_was_in_force_is_there_for_the_next_agent(tmp_path: Path) -> None:
    good = made(GOOD)
    refused = made(REFUSED, before=good)
    assert refused.error and refused.rules == good.rules
    KeptPolicies(tmp_path).note(change(good, refused))
    kept = KeptPolicies(tmp_path).load()
    again = made(REFUSED, before=kept[(KIND, "prod", "web")])
    assert again == refused


def test_nothing_is_kept_of_a_good_or_a_deleted_policy(tmp_path: Path) -> None:
    good = made(GOOD)
    refused = made(REFUSED, before=good)
    for new in (good, None):
        KeptPolicies(tmp_path).note(change(good, refused))
        KeptPolicies(tmp_path).note(change(refused, new))
        assert KeptPolicies(tmp_path).load() == {}


def test_another_object_of_the_same_name_has_no_past() -> None:
    good = made(GOOD)
    other = msgspec.json.decode(msgspec.json.encode(REFUSED))
    other["metadata"]["uid"] = "u2"
    assert made(other, before=good).rules == ()
