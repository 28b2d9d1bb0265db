"""Events: one form for whoever says something about an object."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.metadata import name_problem
from podwire.model.event import MESSAGE_MOST, Saying, again, event

SAID = Saying("Warning", "Failed", "no room", "tester", "n1")


def about(name: str = "web", **meta: str) -> dict[str, Any]:
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, **meta}}


@pytest.mark.parametrize("name", ["web", "a" * 253, f"{'a' * 199}.{'b' * 50}", f"{'a' * 198}--b"])
def test_the_name_is_one_whatever_the_object_is_called(name: str) -> None:
    made = event(about(name, namespace="prod"), SAID, "t")["metadata"]["name"]
    assert made.startswith(name[:100])
    assert name_problem("events", made) is None


def test_what_is_said_again_has_the_same_name_and_what_is_not_has_another() -> None:
    def name(uid: str = "u", said: Saying = SAID, moment: str = "t", same: tuple[str, ...] = ()) -> str:
        return str(event(about(namespace="prod", uid=uid), said, moment, same)["metadata"]["name"])

    other = Saying("Warning", "Failed", "no room at all", "tester", "n1")
    assert name(moment="later") == name()
    assert len({name(), name(uid="v"), name(said=other)}) == 3
    assert name(said=other, same=("room",)) == name(same=("room",))


def test_an_object_without_namespace_is_spoken_of_in_default() -> None:
    made = event({**about("n1"), "kind": "Node"}, SAID, "t")
    assert made["metadata"]["namespace"] == "default"
    assert made["involvedObject"] == {"kind": "Node", "apiVersion": "v1", "name": "n1"}


def test_a_long_message_is_cut() -> None:
    said = Saying("Normal", "Told", "x" * 5000, "tester")
    made = event(about(), said, "t")
    assert len(made["message"]) == MESSAGE_MOST
    assert made["source"] == {"component": "tester"}


def test_said_again_it_is_counted() -> None:
    first, second = event(about(), SAID, "t1"), event(about(), SAID, "t2")
    counted = first | again(first, second)
    assert (counted["count"], counted["firstTimestamp"], counted["lastTimestamp"]) == (2, "t1", "t2")
    assert again({}, first)["count"] == 2  # of an Event without a count there was one
