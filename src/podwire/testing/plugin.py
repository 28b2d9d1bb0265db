"""The pytest plugin; loaded by pytest through its entry point. See docs/guides/testing-policies.md.

It gives the `sandbox` fixture, and runs `async def` tests that use it, so that no other plugin is
needed. Imports are few: pytest loads this in every project that has podwire installed.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from podwire.testing.cluster import Cluster

FIXTURE = "sandbox"


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Callable[..., Cluster]:
    """``async with sandbox("two-nodes") as lab:``: a cluster for the time of the block.

    The lab is a folder with a lab.yaml, or such a file: relative to the test's folder, to pytest's
    root, or the name of a folder in ``labs`` there or of a lab that ships with podwire. Without root
    the test is skipped.
    """
    if os.geteuid() != 0:
        pytest.skip("a sandbox needs root")
    here = Path(request.path).parent
    root = Path(request.config.rootpath)

    def bring_up(lab: str | Path, *, name: str = "") -> Cluster:
        from podwire.testing.cluster import Cluster

        return Cluster(find_lab(lab, here, root), name=name, base=here)

    return bring_up


def find_lab(lab: str | Path, here: Path, root: Path) -> Path:
    """Where `lab` is; NotFound says where it was looked for."""
    import podwire
    from podwire.base.errors import NotFound

    shipped = Path(podwire.__file__).parents[2] / "labs"  # beside the sources
    places = list(dict.fromkeys((here, root, root / "labs", Path.cwd(), shipped)))
    for candidate in (place / lab for place in places):
        if (candidate / "lab.yaml").exists() or candidate.is_file():
            return candidate
    raise NotFound(
        f"there is no lab {lab}: looked in {', '.join(map(str, places))}",
        hint="a lab is a folder with a lab.yaml, or such a file; the sandbox guide tells the format",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test that uses the fixture; leave all others to whom they belong."""
    if FIXTURE not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {
        name: pyfuncitem.funcargs[name] for name in wanted if name in pyfuncitem.funcargs
    }
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
