"""A hook more is a row more: a program before the stack, on the node's device, from attaching to removal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.packets.doors.node import plan

from podwire.bpf.link import Hook as Point
from podwire.datapath import hooks
from podwire.datapath.hooks import DEVICES, HOOKS, Hook, Where
from podwire.datapath.programs import Loading, Programs
from podwire.net import namespaces
from podwire.net.messages import Veth
from podwire.net.stack import Stack

pytestmark = pytest.mark.kernel
EARLY = Hook(Where.NETWORK, "early", "podwire_early", Point.XDP, DEVICES)
TEXT = """
SEC("xdp")
int podwire_early(struct xdp_md *ctx)
{
	return XDP_PASS;
}
"""
PIN = "network-eth0-xdp"


def constants(loading: Loading) -> str:
    """As every object has them that includes abi/config.h."""
    kinds = (
        (name, "__u8", "[16] = {}") if isinstance(value, bytes) else (name, "__u32", " = 0")
        for name, value in loading.constants.items()
    )
    return "".join(f"const volatile {kind} {name}{rest};\n" for name, kind, rest in kinds)


@pytest.fixture
def loading(
    compile_bpf: Callable[..., str], tmp_path: Path, pins: str, monkeypatch: pytest.MonkeyPatch
) -> Loading:
    """Of a version that has one hook more."""
    monkeypatch.setattr(hooks, "HOOKS", (*HOOKS, EARLY))
    made = plan(pins)
    directory = tmp_path / "objects"
    shutil.copytree(made.object_dir, directory)
    shutil.copy(compile_bpf(constants(made) + TEXT, "early.bpf"), directory)
    assert "early" in made.objects, "it is of the node's device, which every node has"
    return msgspec.structs.replace(made, object_dir=str(directory))


def test_it_is_attached_found_replaced_and_removed(
    loading: Loading, netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(work: Callable[..., Any], *arguments: Any) -> Any:
        return namespaces.run(netns, work, *arguments)

    with Stack(netns) as stack:
        ends = Veth("lxc1", b"\2\0\0\0\0\1"), Veth("eth0", b"\2\0\0\0\0\2")
        pod, device = stack.ensure_veth(*ends).ifindex, stack.existing("eth0").ifindex
    programs = Programs.load(loading)
    here(programs.attach_pod, "lxc1", pod)
    here(programs.attach, Where.NETWORK, "eth0", device)
    attached = here(programs.attached)
    assert len(attached) == 5 and attached[PIN].ifindex == device
    assert attached[PIN].program == programs.program("podwire_early").id

    again = Programs.load(loading)
    assert here(again.replace_all) == ["lxc1"]
    replaced = here(again.attached)
    assert replaced[PIN].id == attached[PIN].id, "the same link, so there was no moment without a program"
    assert replaced[PIN].program == again.program("podwire_early").id != attached[PIN].program
    programs.close()

    # Back to a version that does not know the hook: what it does not know it takes off.
    monkeypatch.setattr(hooks, "HOOKS", HOOKS)
    before = Programs.load(
        msgspec.structs.replace(loading, objects=hooks.objects([Where.POD, Where.NETWORK]))
    )
    here(before.replace_all)
    assert PIN not in here(before.attached) and len(here(before.attached)) == 4
    assert not os.path.exists(os.path.join(loading.bpf_dir, "links", PIN))
    again.close()
    here(before.remove)
