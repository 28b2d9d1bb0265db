"""An agent of another version takes a node over while packets flow."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

import pytest
from tests.patience import within

from podwire.base.aio import eventually
from podwire.bpf.map import U32, Map, MapType
from podwire.datapath.generations import newest, open_maps
from podwire.sandbox import view

pytestmark = pytest.mark.cluster


def lost(ping: str) -> tuple[int, int]:
    """(sent, lost) of ping's summary."""
    found = re.search(r"(\d+) packets transmitted, (\d+) received", ping)
    assert found, ping
    return int(found.group(1)), int(found.group(1)) - int(found.group(2))


def make_foreign(directory: str, name: str) -> None:
    """Pin a map of another layout where the next agent expects its own, as another version would."""
    os.unlink(os.path.join(directory, name))
    with Map.create(MapType.HASH, name, U32, U32, 16) as foreign:
        foreign.pin(os.path.join(directory, name))


async def test_maps_of_another_layout_drop_no_packet(sandbox: Any) -> None:
    async with sandbox("two-nodes", name=f"takeover-{os.getpid()}") as lab:
        bpf_dir = str(view.open_sandbox(lab.name)[0].node_bpf("n1"))
        targets = [lab["n2p1"].address, lab["n1p2"].address]
        for name in ("podwire_devices", "podwire_endpoints", "podwire_ipcache"):
            generation = newest(bpf_dir)
            directory = open_maps(bpf_dir).directory
            make_foreign(directory, name)
            async with asyncio.TaskGroup() as group:
                pings = [
                    group.create_task(
                        lab["n1p1"].exec("ping", "-q", "-i", "0.005", "-c", "800", target, timeout=within(60))
                    )
                    for target in targets
                ]
                await lab.restart_agent("n1")
                await eventually(
                    lambda before=generation, old=directory: (
                        newest(bpf_dir) > before and not os.path.exists(old)
                    ),
                    timeout=within(20),
                    what="the new generation of maps",
                )
            for ping in pings:
                sent, missing = lost(ping.result().stdout)
                assert sent == 800
                assert missing == 0, f"{name}: {missing} packets"


DENY_ALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all", "namespace": "default"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}


async def test_what_changes_after_a_takeover_holds_for_pods_that_were_there(sandbox: Any) -> None:
    """A program that was not replaced would go on by the old maps, and nobody would tell it."""
    async with sandbox("two-nodes", name=f"takeover-{os.getpid()}") as lab:
        bpf_dir = str(view.open_sandbox(lab.name)[0].node_bpf("n1"))
        before, directory = newest(bpf_dir), open_maps(bpf_dir).directory
        make_foreign(directory, "podwire_endpoints")
        await lab.restart_agent("n1")
        await eventually(
            lambda: newest(bpf_dir) > before and not os.path.exists(directory),
            timeout=within(20),
            what="the new generation of maps",
        )
        for peer in ("n1p2", "n2p1"):
            assert await lab[peer].can_reach(lab["n1p1"], port=80), peer
        await lab.apply(DENY_ALL)
        for peer in ("n1p2", "n2p1"):
            assert not await lab[peer].can_reach(lab["n1p1"], port=80), peer
