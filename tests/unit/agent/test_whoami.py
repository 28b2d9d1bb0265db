"""Which node this is: told by the API, or by the copy while the API is away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from podwire.agent import whoami
from podwire.agent.whoami import Whoami
from podwire.base.errors import Unreachable

NODE: dict[str, Any] = {
    "metadata": {"name": "n1", "labels": {}},
    "spec": {"podCIDRs": ["10.0.1.0/24"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "172.30.1.11"}]},
}


class Api:
    """Answers with what it is told to, in turn; the last answer is given for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def get(self, resource: Any, name: str) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whoami, "PATIENCE", 0.02)


def find(directory: Path, api: Api) -> Any:
    return asyncio.run(Whoami("n1", directory).find(api))  # type: ignore[arg-type]


def test_the_api_is_waited_for_until_the_node_is_whole(tmp_path: Path) -> None:
    incomplete = {**NODE, "spec": {}}
    row = find(tmp_path, Api(Unreachable("away"), incomplete, NODE))
    assert (row.addresses, row.pod_cidrs) == (("172.30.1.11",), ("10.0.1.0/24",))
    assert row.local


def test_the_copy_is_used_while_the_api_is_away(tmp_path: Path) -> None:
    known = find(tmp_path, Api(NODE))
    assert find(tmp_path, Api(Unreachable("away"))) == known


def test_a_copy_of_another_node_is_no_copy(tmp_path: Path) -> None:
    find(tmp_path, Api(NODE))
    renamed = (tmp_path / "node.json").read_text().replace('"name":"n1"', '"name":"n2"')
    (tmp_path / "node.json").write_text(renamed)

    async def scenario() -> None:
        async with asyncio.timeout(0.1):
            await Whoami("n1", tmp_path).find(Api(Unreachable("away")))  # type: ignore[arg-type]

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
