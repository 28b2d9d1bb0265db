"""Conditions of policies: written once where they are wrong, whatever one object or one answer is like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.kube import Event, resources
from podwire.operator.controllers import Controllers
from podwire.operator.policies import KINDS, PolicyConditions, valid

CNP = resources.CILIUM_NETWORK_POLICIES
QUICK = Backoff(0.001, 0.002)


def parse(item: dict[str, Any]) -> None:
    assert item["kind"] in {one.kind for one in KINDS}  # items of lists have none
    if item.get("spec") == "refused":
        raise InvalidObject("spec", "is not supported")
    if item.get("spec") == "faulty":
        raise ZeroDivisionError


def policy(name: str, spec: str = "good", conditions: Any = None, version: str = "5") -> Event:
    status = {"status": {"conditions": conditions}} if conditions is not None else {}
    metadata = {"namespace": "prod", "name": name, "resourceVersion": version}
    body = {"metadata": metadata, "spec": spec, **status}
    return Event("MODIFIED", "prod", name, msgspec.json.encode(body))


class Scripted:
    """Tells `events` of CiliumNetworkPolicies; answers each patch with the next of `answers`, then well.

    CiliumClusterwideNetworkPolicies it does not serve, which is no reason not to judge the others."""

    def __init__(self, *events: Event, answers: tuple[Exception, ...] = ()) -> None:
        self.events = events
        self.answers = list(answers)
        self.asked: list[str] = []
        self.written: list[tuple[str, dict[str, Any]]] = []

    async def watch(
        self,
        resource: Any,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[Event]:
        if resource is not CNP:
            raise ApiError(404, "NotFound", "not served")
        for event in self.events:
            yield event
        yield Event("SYNCED")
        await asyncio.Event().wait()

    async def patch(
        self, resource: Any, name: str, patch: Any, namespace: str | None = None, *, subresource: str = ""
    ) -> dict[str, Any]:
        assert (resource, namespace, subresource) == (CNP, "prod", "status")
        self.asked.append(name)
        if self.answers:
            raise self.answers.pop(0)
        self.written.append((name, patch))
        return {}


def run(api: Any, count: int) -> PolicyConditions:
    """Until so many patches were asked for and nothing is due."""
    conditions = PolicyConditions(api, parse)

    async def main() -> None:
        async with cancelling("judge", Controllers(api, [conditions], backoff=QUICK).run()):
            await eventually(
                lambda: len(api.asked) >= count and not conditions.due, timeout=10, what="the conditions"
            )

    asyncio.run(main())
    return conditions


def test_each_policy_is_told_what_it_is_on_the_version_that_was_read() -> None:
    api = Scripted(policy("a"), policy("b", "refused", version="7"))
    run(api, 2)
    written = dict(api.written)
    assert written["b"]["metadata"] == {"resourceVersion": "7"}
    found = {name: one["status"]["conditions"][0] for name, one in written.items()}
    assert (found["a"]["status"], found["a"]["reason"]) == ("True", "Accepted")
    assert (found["b"]["status"], found["b"]["message"]) == ("False", "spec: is not supported")


def test_a_policy_that_says_so_already_is_not_written() -> None:
    api = Scripted(policy("right", conditions=[valid("") | {"lastTransitionTime": "then"}]), policy("last"))
    run(api, 1)
    assert api.asked == ["last"]


def test_conditions_of_earlier_versions_go_and_times_stay() -> None:
    old = {"type": "podwire.io/Enforced.gone", "status": "False"}
    other = {"type": "example.com/Seen", "status": "True"}
    right = valid("") | {"lastTransitionTime": "then"}
    api = Scripted(policy("a", conditions=[old, other, right]))
    run(api, 1)
    assert api.written[0][1]["status"]["conditions"] == [other, right]


@pytest.mark.parametrize("spoiled", ["no list", [5], {"type": "Valid"}, [{"type": 7}]])
def test_a_status_that_is_none_and_a_fault_of_ours_end_nothing(spoiled: Any) -> None:
    api = Scripted(policy("spoiled", conditions=spoiled), policy("faulty", "faulty"), policy("last"))
    run(api, 1)
    assert "last" in api.asked and "faulty" not in api.asked


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        (ApiError(404, "NotFound", "gone"), 1),
        (ApiError(409, "Conflict", "changed meanwhile"), 1),  # its next event says what is due
        (ApiError(500, "InternalError", "no"), 2),
        (Unreachable("away"), 2),
    ],
    ids=["gone", "changed", "failing", "away"],
)
def test_what_fails_is_tried_again_where_that_helps(answer: Exception, times: int) -> None:
    api = Scripted(policy("a"), answers=(answer,))
    run(api, times)
    assert api.asked == ["a"] * times


def test_a_policy_that_goes_has_nothing_due() -> None:
    conditions = PolicyConditions(cast(Any, Scripted()), parse)
    conditions.take(CNP, policy("a"))
    assert len(conditions.due) == 1
    conditions.take(CNP, Event("DELETED", "prod", "a"))
    assert not conditions.due
