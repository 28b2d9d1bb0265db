"""Golden files: manifests in; tables, maps and flows out. `pytest tests/scenarios --update` rewrites them.

Each file runs twice: its packets are decided by the tables looked up in Python, and by the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwire.datapath import objects
from podwire.testing.engines import Kernel, Lookup
from podwire.testing.node import ScenarioNode
from podwire.testing.scenario import Scenario, check, update
from podwire.testing.world import World

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.scenario"))
UPDATING = os.environ.get("PODWIRE_UPDATE") == "1"
PODS = 8


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def judge(path: Path, scenario: Scenario, came_out: dict[str, str]) -> None:
    if os.environ.get("PODWIRE_UPDATE") == "1":
        path.write_text(update(scenario, came_out).text())
    else:
        assert not (problems := check(scenario, came_out)), "\n".join(problems)


def test_by_the_tables(path: Path) -> None:
    scenario = Scenario.parse(path.read_text())
    options = scenario.options()
    node = ScenarioNode(dual="dual" in options, tunnel="tunnel" in options)
    judge(path, scenario, scenario.run(node, Lookup(node)))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(Path(objects.directory()), pods=PODS) as made:
        yield made


@pytest.mark.kernel
def test_by_the_kernel(path: Path, world: World) -> None:
    scenario = Scenario.parse(path.read_text())
    options = scenario.options()

    def device(number: int) -> tuple[int, str, str]:
        return world.device(f"pw{number}"), f"02:0a:00:00:00:{number:02x}", f"02:ee:00:00:00:{number:02x}"

    node = ScenarioNode(dual="dual" in options, tunnel="tunnel" in options, device=device)
    judge(path, scenario, scenario.run(node, Kernel(node, world)))


def test_every_block_is_used() -> None:
    """A block nobody applies or expects says something that nobody checks."""
    for path in FILES:
        scenario = Scenario.parse(path.read_text())
        used = {name for line in scenario.commands() if line.startswith("apply") for name in line.split()[1:]}
        used |= {line.removeprefix("expect ") for line in scenario.commands() if line.startswith("expect")}
        assert set(scenario.blocks) == used, path.name
