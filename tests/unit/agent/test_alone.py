"""Two agents of one node: the second one does nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from podwire.agent.alone import alone
from podwire.base.errors import Conflict


def test_the_second_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with alone(tmp_path / "run"):
            with pytest.raises(Conflict, match="another agent uses"):
                async with alone(tmp_path / "run", patience=0):
                    pass
            async with alone(tmp_path / "other"):
                pass
        async with alone(tmp_path / "run", patience=0):
            pass

    asyncio.run(main())


def test_a_successor_waits_for_one_that_stops(tmp_path: Path) -> None:
    async def main() -> None:
        first = alone(tmp_path)
        await first.__aenter__()
        second = alone(tmp_path, patience=20)
        entered, _ = await asyncio.gather(second.__aenter__(), first.__aexit__(None, None, None))
        assert entered is None
        await second.__aexit__(None, None, None)

    asyncio.run(main())


def test_a_timeout_of_the_work_is_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError, match="mine"):
            async with alone(tmp_path):
                raise TimeoutError("mine")

    asyncio.run(main())
