"""The table of hooks: what earlier agents pinned is found again, and nothing that is compiled is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwire.bpf import elf, probe
from podwire.bpf.link import CGROUP_SECTIONS
from podwire.bpf.link import Hook as Point
from podwire.datapath import hooks
from podwire.datapath.hooks import HOOKS, Hook, Where

ROOT = Path(__file__).parents[3]
OBJECTS = sorted((ROOT / "build" / "bpf").rglob("*.bpf.o"))


@pytest.mark.parametrize(
    ("name", "program", "device"),
    [
        ("pods/lxc1-ingress", "podwire_from_pod", "lxc1"),
        ("pods/lxc-a-b-egress", "podwire_to_pod", "lxc-a-b"),
        ("network-eth0-ingress", "podwire_from_network", "eth0"),
        ("network-eth0-egress", "podwire_to_network", "eth0"),
        ("overlay-podwire_vxlan-ingress", "podwire_from_overlay", "podwire_vxlan"),
        ("overlay-podwire_vxlan-egress", "podwire_to_overlay", "podwire_vxlan"),
        *(
            (f"cgroup-podwire_{call}{family}", f"podwire_{call}{family}", "")
            for call in ("connect", "sendmsg", "recvmsg", "getpeername")
            for family in (4, 6)
        ),
    ],
)
def test_names_of_links_stay_as_earlier_agents_pinned_them(name: str, program: str, device: str) -> None:
    found = hooks.of_pin(name)
    assert found is not None
    assert (found[0].program, found[1]) == (program, device)
    assert found[0].pin(device) == name


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.program)
@pytest.mark.parametrize("device", ["eth0", "a-b", "egress", "x-ingress"])
def test_a_link_is_of_the_hook_it_was_named_for(hook: Hook, device: str) -> None:
    on = device if hook.where.is_device else ""
    assert hooks.of_pin(hook.pin(on)) == (hook, on)


@pytest.mark.parametrize(
    "name", ["pods/lxc1-xdp", "pods/-ingress", "network-eth0", "cgroup-podwire_bind4", "later-eth0-ingress"]
)
def test_a_link_of_another_version_is_of_none(name: str) -> None:
    assert hooks.of_pin(name) is None


def test_the_objects_are_those_of_the_places() -> None:
    assert hooks.objects([Where.NETWORK, Where.POD]) == ("lxc", "host")
    assert hooks.objects([Where.CGROUP]) == ("sock",)
    assert {f"{name}.bpf.o" for name in hooks.objects(Where)} == {path.name for path in OBJECTS}


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: str(path.relative_to(ROOT / "build")))
def test_every_program_has_its_hook(path: Path) -> None:
    """And is compiled for a hook of that kind."""
    handle = elf.open_file(str(path))
    try:
        sections = {name: elf.program_section(program) for name, program in elf.programs(handle)}
    finally:
        elf.close(handle)
    here = [hook for hook in HOOKS if f"{hook.object}.bpf.o" == path.name]
    assert {hook.program for hook in here} == set(sections) and len(here) == len(sections)
    for hook in here:
        section = sections[hook.program]
        points = {"tc": (Point.TC_INGRESS, Point.TC_EGRESS), "xdp": (Point.XDP,)}
        assert hook.point in points.get(section, (CGROUP_SECTIONS.get(section),))


def test_features_that_may_be_missing_are_ones_that_are_looked_for() -> None:
    known = {name for name, *_ in probe.declared()}
    assert hooks.parts()
    for part in hooks.parts():
        assert set(part.features) <= known and part.instead


@pytest.mark.parametrize("name", hooks.objects(Where))
def test_architecture_tells_of_each_object(name: str) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert f"| [`bpf/{name}.bpf.c`](bpf/{name}.bpf.c) |" in text
