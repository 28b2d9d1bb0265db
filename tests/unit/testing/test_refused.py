"""What a test asks for and cannot be: refused, where silence would let the test pass."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from podwire.base.errors import NotFound, UsageError
from podwire.testing.cluster import Pod
from podwire.testing.observed import Flows
from podwire.testing.plugin import find_lab


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"protocol": "sctp"}, "sctp"),
        ({"protocol": "TCP"}, "TCP"),
        ({"port": 99999}, "99999"),
        ({"port": 0}, "port 0"),
        ({"family": 5}, "family 5"),
    ],
)
def test_an_attempt_that_cannot_be_is_refused(asked: dict[str, Any], named: str) -> None:
    pod = Pod(cast(Any, None), "default", "a", "n1", ("10.0.0.1",))
    for attempt in (pod.can_reach, pod.reach):
        with pytest.raises(UsageError, match=named) as caught:
            asyncio.run(attempt("10.0.0.2", **asked))
        assert caught.value.hint


@pytest.mark.parametrize(
    "asked", [{"verdict": "NOPE"}, {"drop_reason": "BAD_LUCK"}, {"protocol": "tcp"}, {"port": 99999}]
)
def test_flows_that_cannot_be_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(asked.values())))) as caught:
        Flows("none", 0.0, **asked)
    assert caught.value.hint


def test_flows_that_can_be_are_not() -> None:
    Flows("none", 0.0, verdict="DROPPED", drop_reason="PEER_UNKNOWN", protocol="TCP", port=80)


def test_a_lab_is_found_or_it_is_said_where_it_was_looked_for(tmp_path: Path) -> None:
    assert (find_lab("two-nodes", tmp_path, tmp_path) / "lab.yaml").is_file()
    with pytest.raises(NotFound, match="no lab nowhere") as caught:
        find_lab("nowhere", tmp_path, tmp_path)
    assert str(tmp_path / "labs") in str(caught.value) and caught.value.hint
