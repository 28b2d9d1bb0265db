"""What runs controllers: a fault over one object is its own, and what is not known is not taken for gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.loopback.kube.api import MAPS, config_map
from tests.loopback.kube.apis import both_ways
from tests.loopback.operator.worlds import QUICK, World, run

from podwire.base.aio import cancelling, eventually
from podwire.base.errors import ApiError
from podwire.kube import Event, Resource
from podwire.operator.controllers import WORKERS, Controllers

Object = dict[str, Any]


class Recorder:
    """Follows ConfigMaps and looks at each, as it is told to."""

    name = "recorder"
    follows = (MAPS,)

    def __init__(self, *, needs_all: bool = True) -> None:
        self.needs_all = needs_all
        self.there: dict[tuple[str, str], str] = {}
        self.looked: list[str] = []
        self.faults: dict[str, Exception] = {}

    def take(self, resource: Resource, event: Event) -> Iterable[str]:
        place = event.namespace, event.name
        if event.name == "poison":
            raise KeyError("a fault of ours")
        if event.kind == "DELETED":
            self.there.pop(place, None)
        else:
            self.there[place] = event.object.get("data", {}).get("x", "")
        return (event.name,) if event.namespace == "default" else ()

    async def reconcile(self, key: str) -> float | None:
        self.looked.append(key)
        await asyncio.sleep(0)
        if key in self.faults:
            raise self.faults.pop(key)
        return None


@both_ways
def test_a_fault_over_one_object_is_its_own_and_tried_again(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        for name in ("a", "b", "c", "poison"):
            await world.api.create(MAPS, config_map(name))
        recorder = Recorder()
        recorder.faults = {"a": ZeroDivisionError(), "b": ApiError(500, "InternalError", "no")}
        async with world.running(recorder) as controllers:
            assert sorted(one for one in recorder.looked if one in "abc") == ["a", "a", "b", "b", "c"]
            (work,) = controllers.works
            assert (work.failed, work.queue.retried, work.queue.failing) == (2, 2, 0)

    run(way, tmp_path, test)


def test_of_many_keys_that_are_in_order_others_have_their_turn() -> None:
    """What is looked at waits for nothing, so that nobody else would run before the last of 100,000."""
    longest, turns, events = 0, 0, 3000

    class Quick(Recorder):
        async def reconcile(self, key: str) -> float | None:
            self.looked.append(key)
            return None

    class Full:
        async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Event]:
            for number in range(events):
                yield Event("ADDED", "default", f"m{number}", b"{}")
            yield Event("SYNCED")
            await asyncio.Event().wait()

    async def main() -> None:
        nonlocal longest, turns
        recorder, api = Quick(), Full()
        controllers = Controllers(cast(Any, api), [recorder], backoff=QUICK)

        async def others() -> None:
            nonlocal longest, turns
            before = 0
            while True:
                await asyncio.sleep(0)
                longest, turns = max(longest, len(recorder.looked) - before), turns + 1
                before = len(recorder.looked)

        async with cancelling("others", others()), cancelling("controllers", controllers.run()):
            await eventually(lambda: controllers.idle, timeout=20, what="rest")
        assert len(recorder.looked) == events

    asyncio.run(main())
    assert longest <= 64 * WORKERS and turns >= events / (64 * WORKERS)


@pytest.mark.parametrize("needs_all", [True, False])
def test_a_stream_that_ends_is_begun_anew_and_what_went_meanwhile_is_gone(needs_all: bool) -> None:
    """Also of a stream that remembers nothing. Who acts on what is not there waits until all is told."""

    def event(kind: str, name: str = "") -> Event:
        return Event(kind, "default" if name else "", name, b'{"metadata": {}}' if name else b"")

    async def main() -> None:
        recorder, whole = Recorder(needs_all=needs_all), asyncio.Event()

        class Ending:
            asked = 0

            async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Event]:
                self.asked += 1
                if self.asked == 1:
                    for one in (event("ADDED", "a"), event("ADDED", "b"), event("SYNCED")):
                        yield one
                    raise ApiError(403, "Forbidden", "not for you any more")
                yield event("ADDED", "b")
                await whole.wait()
                yield event("SYNCED")
                await asyncio.Event().wait()

        api: Any = Ending()
        controllers = Controllers(api, [recorder], backoff=QUICK)
        (work,) = controllers.works
        async with cancelling("controllers", controllers.run()):
            await eventually(lambda: api.asked == 2, timeout=20, what="the second stream")
            assert ("default", "a") in recorder.there  # nobody has said that it is gone
            if not needs_all:
                await eventually(lambda: "b" in recorder.looked, timeout=20, what="the look at b")
            else:
                looked = list(recorder.looked)
                work.queue.add("b")
                work.wake.set()
                for _ in range(20):
                    await asyncio.sleep(0)
                assert recorder.looked == looked
            whole.set()
            await eventually(lambda: ("default", "a") not in recorder.there, timeout=20, what="its end")
            await eventually(lambda: work.idle, timeout=20, what="rest")
            assert "a" in recorder.looked and recorder.there.keys() == {("default", "b")}

    asyncio.run(main())
