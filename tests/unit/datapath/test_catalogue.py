"""What a new map takes: a file in the catalogue. All else knows it from there."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from errno import EPERM
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.datapath.conftest import WEB, Node, entry, peer
from tests.unit.datapath.kernel import MemoryMap
from tests.unit.datapath.test_write import BACKEND, FRONTEND, settled, until

from podwire.abi.enums import EndpointFlags
from podwire.base.config import AgentConfig
from podwire.base.errors import KernelError
from podwire.bpf.map import U32, codec
from podwire.datapath import catalogue, epochs
from podwire.datapath.catalogue import CATALOGUE
from podwire.datapath.spec import Lack, MapSpec, Setting, Step, in_order
from podwire.state.tables import IpcacheRow, NamespaceRow, Tables

ROOT = Path(__file__).parents[3]
OBJECTS = sorted((ROOT / "build" / "bpf").rglob("*.bpf.o"))
OWN = {"podwire_scratch"}  # each object has one for itself, which nobody else looks into
DECLARED = re.compile(r"^\} (podwire_\w+) SEC\(\"\.maps\"\);", re.M)

# All that there is of a map in Python. That it says nothing of a lack of it is the safe side.
QUOTA = """
from podwire.bpf.map import U32, raw
from podwire.datapath.spec import EVERYWHERE, MapSpec, Step, Written, each

MAPS = (
    MapSpec(
        "podwire_quota",
        raw(16),
        U32,
        "namespace → its quota",
        EVERYWHERE,
        size="lb_map_max",
        written=Written(
            step=Step.ADDRESSES,
            rows=(each("namespaces", lambda row: {row.name.encode().ljust(16): U32.pack(len(row.labels))}),),
        ),
    ),
)
"""
NAME = "podwire_quota"


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, MapSpec]]:
    """The catalogue with one file more."""
    (tmp_path / "quota.py").write_text(QUOTA)
    monkeypatch.setattr(catalogue, "__path__", [*catalogue.__path__, str(tmp_path)])
    yield catalogue.collect()
    del sys.modules["podwire.datapath.catalogue.quota"]
    del catalogue.quota  # type: ignore[attr-defined]


def key(name: str) -> bytes:
    return name.encode().ljust(16)


def namespace(name: str, labels: int) -> NamespaceRow:
    return NamespaceRow(name, tuple(f"k8s:n={one}" for one in range(labels)))


def changed(specs: dict[str, MapSpec], **written: Any) -> dict[str, MapSpec]:
    """With something else said of how the new map is written."""
    quota = specs[NAME]
    assert quota.written is not None
    other = msgspec.structs.replace(quota.written, **written)
    return {**specs, NAME: msgspec.structs.replace(quota, written=other)}


def test_what_closes_endpoints_is_not_written_with_them(specs: dict[str, MapSpec]) -> None:
    """An endpoint is opened by one write, and it would be too early."""
    with pytest.raises(AssertionError, match=f"{NAME} decides about endpoints"):
        in_order(changed(specs, step=Step.ENDPOINTS).values())
    in_order(changed(specs, step=Step.ENDPOINTS, lack=Lack.NOTHING).values())


def record(node: Node, steps: list[tuple[str, str]]) -> None:
    """Into `steps`, what is done to which map."""

    def note(name: str, step: str, key: bytes) -> None:
        if steps[-1:] != [(step, name)] and step != "get":
            steps.append((step, name))

    for name, table in node.kernel.maps.items():
        table.refuse = partial(note, name)


def test_a_map_in_a_file_of_its_own_is_written_in_order_pruned_and_counted(
    specs: dict[str, MapSpec],
) -> None:
    async def main() -> None:
        node, steps = Node(), list[tuple[str, str]]()
        left = {key("earlier"): U32.pack(9), key("prod"): U32.pack(9)}
        node.kernel.maps[NAME] = MemoryMap(NAME, 8, left)
        node.tables.namespaces.put(namespace("prod", 2))
        async with node.writer(specs=specs.values()) as writer:
            record(node, steps)
            node.obey(7, [entry(7, 80)], [peer(7, 99)])
            node.tables.ipcache.put(IpcacheRow("10.0.9.9/32", 99, "pod"))
            node.tables.backends.put(BACKEND)
            node.tables.frontends.put(FRONTEND)
            await asyncio.wait_for(writer.wait_realized(WEB.id), 10)
            content = node.kernel.maps[NAME].content
            assert content == {key("earlier"): U32.pack(9), key("prod"): U32.pack(2)}, "not pruned yet"
            written = [name for step, name in steps if step == "put" and name != "podwire_state"]
            assert written == [
                *("podwire_policy", "podwire_policy_peers", "podwire_ipcache", NAME),
                *("podwire_backends", "podwire_slots", "podwire_rev_nat", "podwire_frontends"),
                *("podwire_endpoints", "podwire_devices"),
            ]

            node.ready()
            await until(lambda: writer.synced, "the writer")
            assert content == {key("prod"): U32.pack(2)}
            assert writer.usage()[NAME] == (1, 8)

            steps.clear()
            node.tables.namespaces.delete("prod")
            await until(lambda: not content, "the row to go")
            assert ("delete", NAME) in steps and writer.usage()[NAME] == (0, 8)

    asyncio.run(main())


def test_of_a_map_that_decides_connections_are_asked_about_again(specs: dict[str, MapSpec]) -> None:
    async def main() -> None:
        node = Node()
        node.ready()
        async with node.writer(specs=specs.values()) as writer:
            node.obey(7, [entry(7, 80)], [peer(7, 99)])
            await settled(writer, node, 7)
            before = node.epochs()[0]
            node.tables.namespaces.put(namespace("prod", 1))
            await until(lambda: node.epochs()[0] == before + 1, "another epoch")

    asyncio.run(main())


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.ENDPOINTS])
def test_nothing_passes_while_a_map_that_decides_is_not_whole(specs: dict[str, MapSpec], step: Step) -> None:
    """Of a full one, and of one that will neither replace nor remove an entry; whenever it is written."""
    placed = changed(specs, step=step)

    async def main() -> None:
        node = Node(podwire_quota=2)
        node.ready()
        async with node.writer(specs=placed.values()) as writer:
            node.obey(7, [entry(7, 80)], [peer(7, 99)])
            await settled(writer, node, 7)
            assert not node.endpoint().flags & EndpointFlags.NOT_READY
            for number in range(3):
                node.tables.namespaces.put(namespace(f"n{number}", 1))
            await until(lambda: node.endpoint().flags & EndpointFlags.NOT_READY, "nothing to pass")
            await until(lambda: len(node.tables.endpoint_failures), "it to be told")
            (told,) = node.tables.endpoint_failures
            assert told.error.startswith("it talks to nobody") and f"map {NAME} is full at 2" in told.error

            node.tables.namespaces.delete("n2")
            await until(lambda: not node.endpoint().flags & EndpointFlags.NOT_READY, "all to pass again")
            await until(lambda: not len(node.tables.endpoint_failures), "nothing to tell")

            node.kernel.maps[NAME].refuse = lambda step, key: _refuse(step)
            node.tables.namespaces.put(namespace("n1", 5))
            await until(lambda: node.endpoint().flags & EndpointFlags.NOT_READY, "nothing to pass")
            node.kernel.maps[NAME].refuse = lambda step, key: None
            await until(lambda: not node.endpoint().flags & EndpointFlags.NOT_READY, "all to pass again")
            assert node.kernel.maps[NAME].content[key("n1")] == U32.pack(5)

    asyncio.run(main())


def _refuse(step: str) -> None:
    raise KernelError(step, EPERM)


def test_a_full_map_without_which_nothing_passes_anyway_closes_nobody(specs: dict[str, MapSpec]) -> None:
    async def main() -> None:
        open_ = changed(specs, lack=Lack.NOTHING)
        node = Node(podwire_quota=2)
        node.ready()
        async with node.writer(specs=open_.values()) as writer:
            node.obey(7, [entry(7, 80)], [peer(7, 99)])
            for number in range(3):
                node.tables.namespaces.put(namespace(f"n{number}", 1))
            await settled(writer, node, 7)
            await until(lambda: writer.errors(), "a failure")
            assert not node.endpoint().flags & EndpointFlags.NOT_READY

    asyncio.run(main())


def test_the_harness_writes_it_as_well(specs: dict[str, MapSpec]) -> None:
    tables = Tables()
    tables.namespaces.put(namespace("prod", 2))
    assert specs[NAME].all_entries(Setting(tables, "n1")) == {key("prod"): U32.pack(2)}


def test_a_map_is_in_the_catalogue_once(specs: dict[str, MapSpec], tmp_path: Path) -> None:
    (tmp_path / "share.py").write_text(QUOTA)
    with pytest.raises(AssertionError, match=f"{NAME} is in the catalogue twice"):
        catalogue.collect()
    del sys.modules["podwire.datapath.catalogue.share"]
    del catalogue.share  # type: ignore[attr-defined]


# The catalogue as it is


@pytest.mark.parametrize("header", sorted((ROOT / "bpf").rglob("*.[ch]")), ids=lambda path: path.name)
def test_a_header_with_maps_has_a_file_of_its_name(header: Path) -> None:
    declared = set(DECLARED.findall(header.read_text())) - OWN
    assert not declared or {one.name for one in module(header.stem)} == declared


def module(name: str) -> tuple[MapSpec, ...]:
    maps: tuple[MapSpec, ...] = import_module(f"podwire.datapath.catalogue.{name}").MAPS
    return maps


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: str(path.relative_to(ROOT / "build")))
def test_objects_declare_the_maps_that_are_said_to_be_theirs(path: Path) -> None:
    dump = subprocess.run(
        ["bpftool", "btf", "dump", "-j", "file", str(path)], capture_output=True, text=True, check=True
    )
    (section,) = (one for one in json.loads(dump.stdout)["types"] if one["name"] == ".maps")
    names = {one["id"]: one["name"] for one in json.loads(dump.stdout)["types"]}
    declared = {names[one["type_id"]] for one in section["vars"]} - OWN
    assert declared == set(catalogue.declared_by([path.name.partition(".")[0]]))


def test_the_objects_are_built() -> None:
    """Otherwise the test before has no cases, and passes."""
    assert {path.name for path in OBJECTS} == {
        f"{one}.bpf.o" for spec in CATALOGUE.values() for one in spec.objects
    }


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
def test_what_a_map_names_is_there(spec: MapSpec) -> None:
    assert spec.help and spec.objects
    assert not spec.size or spec.size in AgentConfig.__struct_fields__
    tables = Tables()
    for name in spec.tables:
        tables.named(name)
    if spec.written is not None:
        assert spec.written.rows
        assert spec.mirror(MemoryMap(spec.name, 1), tables).closes is (spec.written.lack is Lack.ANYTHING)


def test_what_is_pointed_at_is_written_first() -> None:
    order = [spec.name for specs in in_order(CATALOGUE.values()).values() for spec in specs]
    assert order == [
        *("podwire_policy", "podwire_policy_peers", "podwire_ipcache", "podwire_ipcache_prefixes"),
        *("podwire_backends", "podwire_slots", "podwire_rev_nat", "podwire_frontends"),
        *("podwire_endpoints", "podwire_devices"),
    ]
    assert list(Step) == sorted(Step)


def test_every_map_that_decides_has_connections_asked_about_again() -> None:
    for spec in CATALOGUE.values():
        if spec.written is not None and spec.written.lack is not Lack.NOTHING:
            assert epochs.places(spec.written.asks, {bytes(codec(spec.key).size)}), spec.name
