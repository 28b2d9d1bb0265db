"""Maps that are replaced: generations, growth that fails, programs that are refused; sweeping."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.packets.doors.node import plan

from podwire.abi import structs
from podwire.base import addresses
from podwire.base.errors import KernelError, VerifierRejected
from podwire.bpf.filter import Filter
from podwire.bpf.link import Link
from podwire.bpf.map import U32, Map, MapType
from podwire.bpf.object import Program
from podwire.datapath import conntrack, generations
from podwire.datapath.catalogue import CATALOGUE
from podwire.datapath.hooks import Where
from podwire.datapath.programs import Programs
from podwire.net import namespaces
from podwire.net.messages import Veth
from podwire.net.stack import Stack

pytestmark = pytest.mark.kernel


def test_maps_that_changed_start_a_generation_and_the_others_go_along(programs: Programs, pins: str) -> None:
    programs.maps["podwire_ipcache"]["10.9.9.9"] = structs.IpcacheEntry(identity=5)
    programs.maps["podwire_devices"][7] = structs.Endpoint(id=7)
    directory = programs.maps.directory
    os.unlink(os.path.join(directory, "podwire_devices"))
    with Map.create(MapType.HASH, "podwire_devices", U32, U32, 16) as foreign:
        foreign.pin(os.path.join(directory, "podwire_devices"))
    again = Programs.load(plan(pins))
    assert again.made_new == ("podwire_devices",)
    # Not the current one before it has taken over: a process that dies now leaves all as it is.
    assert generations.open_maps(again.loading.bpf_dir).directory == directory
    again.maps["podwire_devices"][8] = structs.Endpoint(id=8)
    again.replace_all()
    assert again.maps.directory == directory.replace("maps-1", "maps-2")
    assert again.maps["podwire_ipcache"]["10.9.9.9"].identity == 5
    assert dict(again.maps["podwire_devices"].items()) == {8: structs.Endpoint(id=8)}
    again.drop_old()
    assert not os.path.exists(directory)
    assert (
        generations.open_maps(again.loading.bpf_dir)["podwire_devices"].id == again.maps["podwire_devices"].id
    )
    again.close()


def test_a_map_whose_bytes_mean_something_else_begins_empty(programs: Programs, pins: str) -> None:
    """Its sizes are the same, so the kernel sees no difference."""
    key = structs.CtKey(addresses.pack("10.0.1.1"), addresses.pack("10.0.1.2"), 1, 2, 6)
    programs.maps["podwire_conntrack"][key] = structs.CtEntry(expires=1 << 30)
    programs.maps["podwire_ipcache"]["10.9.9.9"] = structs.IpcacheEntry(identity=5)
    (mark,) = (one for one in generations.marks(programs.maps.directory) if "podwire_conntrack-" in one)
    os.rename(mark, mark[:-8] + "00000000")
    assert generations.of_another_layout(programs.maps.directory) == ["podwire_conntrack"]
    again = Programs.load(plan(pins))
    assert again.made_new == ("podwire_conntrack",)
    assert not len(again.maps["podwire_conntrack"])
    assert again.maps["podwire_ipcache"]["10.9.9.9"].identity == 5
    again.replace_all()
    assert not generations.of_another_layout(again.maps.directory)
    again.close()


def test_a_layout_is_of_the_meaning_not_of_the_size() -> None:
    spec = CATALOGUE["podwire_conntrack"]

    class Other(structs.CtEntry):
        OFFSETS = {**structs.CtEntry.OFFSETS, "rule": 28, "policy": 32}

    other = msgspec.structs.replace(spec, value=Other)
    assert other.value.SIZE == spec.value.SIZE and other.layout != spec.layout
    assert len({one.layout for one in CATALOGUE.values()}) > 10


def test_what_a_process_that_died_had_prepared_is_not_used(programs: Programs, pins: str) -> None:
    bpf_dir = programs.loading.bpf_dir
    prepared = generations.prepare(bpf_dir, {"podwire_ipcache": {"max_entries"}})
    assert "podwire_ipcache" not in os.listdir(prepared)
    again = Programs.load(plan(pins))
    assert again.maps.directory == programs.maps.directory
    again.replace_all()
    again.drop_old()
    assert not os.path.exists(prepared)
    again.close()


def test_growth_that_fails_leaves_the_programs_as_they_were(
    programs: Programs, netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each link update made to fail in turn, on two devices of a namespace of our own."""

    def here(work: Callable[..., Any], *arguments: Any) -> Any:
        return namespaces.run(netns, work, *arguments)

    with Stack(netns) as stack:
        pair = stack.ensure_veth(Veth("lxc1", b"\2\0\0\0\0\1"), Veth("eth0", b"\2\0\0\0\0\2"))
        here(programs.attach_pod, "lxc1", pair.ifindex)
        here(programs.attach, Where.NETWORK, "eth0", stack.existing("eth0").ifindex)
    programs.maps["podwire_ipcache"]["10.9.9.9"] = structs.IpcacheEntry(identity=5)
    before, directory = here(programs.attached), programs.maps.directory
    assert len(before) == 4
    calls, failing = 0, 0

    def guard(kind: type[Link] | type[Filter]) -> None:
        real: Any = kind.replace

        def replace(attached: Link | Filter, program: Program) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise KernelError("replace the program of a link", 12)
            real(attached, program)

        monkeypatch.setattr(kind, "replace", replace)

    guard(Link)
    guard(Filter)
    for failing in (1, 2, 3, 4):  # noqa: B007  read by replace
        calls = 0
        assert here(programs.bigger, "podwire_ipcache", 1000) is None
        assert here(programs.attached) == before
        assert (programs.maps.directory, sorted(os.listdir(programs.loading.bpf_dir))) == (
            directory,
            ["binding", "links", os.path.basename(directory)],
        )
    failing, calls = 0, 0
    grown = here(programs.bigger, "podwire_ipcache", 1000)
    assert grown is not None
    with grown:
        assert grown.capacity == 1024
        assert len(grown) == 1
    after = here(programs.attached)
    assert set(after) == set(before)
    assert all(after[name].program != before[name].program for name in before)


def test_a_refused_program_leaves_the_maps_as_they_were(
    programs: Programs, pins: str, tmp_path: Path, compile_bpf: Callable[[str], str]
) -> None:
    bad = 'SEC("tc") int bad(struct __sk_buff *skb) { return *(int *)(long)skb->len; }'
    Path(compile_bpf(bad, "host")).rename(tmp_path / "host.bpf.o")
    good = Path(programs.loading.object_dir) / "lxc.bpf.o"
    (tmp_path / "lxc.bpf.o").symlink_to(good)
    before = sorted(os.listdir(programs.maps.directory))
    wanted = msgspec.structs.replace(plan(pins), object_dir=str(tmp_path), constants={})
    with pytest.raises(VerifierRejected):
        Programs.load(wanted)
    assert sorted(os.listdir(programs.maps.directory)) == before


def test_expired_connections_are_swept_and_a_pods_forgotten(programs: Programs) -> None:
    table = programs.maps["podwire_conntrack"]
    now = conntrack.now()

    def key(number: int) -> structs.CtKey:
        return structs.CtKey(
            addresses.pack(f"10.0.1.{number}"), addresses.pack("10.0.2.1"), 1000 + number, 80, 6
        )

    for number in range(100):
        table[key(number)] = structs.CtEntry(
            expires=now + (60 if number % 2 else -60), direction=2, packets_sent=number, flags=4
        )
    connections = conntrack.Conntrack.of(programs.maps)
    assert connections.sweep(now) == (50, 50)
    assert connections.forget(["10.0.1.1", "10.0.1.2"]) == 1
    left = sorted(entry.packets_sent for _, entry in table.items())
    assert left == list(range(3, 100, 2))


def test_the_objects_have_the_maps_of_the_catalogue(programs: Programs) -> None:
    directory = programs.maps.directory
    pinned = {one for one in os.listdir(directory) if not os.path.isdir(os.path.join(directory, one))}
    assert pinned >= {"podwire_policy", "podwire_conntrack", "podwire_events"}
    for name in pinned:
        programs.maps[name]  # ValueError if key or value were of another size


def test_constants_are_told_in_one_step_or_not_at_all(
    programs: Programs, netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second link's update made to fail; then all of them done, on the maps that are there."""
    with Stack(netns) as stack:
        pair = stack.ensure_veth(Veth("lxc1", b"\2\0\0\0\0\1"), Veth("eth0", b"\2\0\0\0\0\2"))
    namespaces.run(netns, programs.attach_pod, "lxc1", pair.ifindex)
    programs.maps["podwire_ipcache"]["10.9.9.9"] = structs.IpcacheEntry(identity=5)
    before, directory = namespaces.run(netns, programs.attached), programs.maps.directory
    wanted = {**programs.loading.constants, "config_node_ipv4": addresses.pack("192.0.2.9")}
    calls = 0

    def guard(kind: type[Link] | type[Filter]) -> None:
        real: Any = kind.replace

        def replace(attached: Link | Filter, program: Program) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KernelError("replace the program of a link", 12)
            real(attached, program)

        monkeypatch.setattr(kind, "replace", replace)

    guard(Link)
    guard(Filter)
    with pytest.raises(KernelError):
        namespaces.run(netns, programs.tell, wanted)
    assert namespaces.run(netns, programs.attached) == before
    assert programs.loading.constants != wanted
    namespaces.run(netns, programs.tell, wanted)
    after = namespaces.run(netns, programs.attached)
    assert set(after) == set(before)
    assert all(after[name].program != before[name].program for name in before)
    assert programs.loading.constants == wanted
    assert programs.maps.directory == directory
    assert programs.maps["podwire_ipcache"].get("10.9.9.9") is not None
    done = calls
    namespaces.run(netns, programs.tell, wanted)
    assert calls == done, "the same again is no step"
