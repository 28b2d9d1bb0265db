"""Marks of packets that no device received: who a proxy of the node speaks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podwire.abi.enums import CtFlags, Direction, DropReason, EndpointFlags, MarkKind
from podwire.datapath import objects
from podwire.testing.world import PASS, World

pytestmark = pytest.mark.kernel

FRIEND, STRANGER = 0x021234, 0x035678  # both need more than 16 bits


def mark(kind: MarkKind, identity: int) -> int:
    return (identity & 0xFFFF) << 16 | kind | identity >> 16


@pytest.fixture(params=[0, 1], ids=["no proxy", "proxy"])
def proxied(request: pytest.FixtureRequest) -> Iterator[tuple[World, bool]]:
    with World(Path(objects.directory()), {"config_proxy": request.param}) as made:
        yield made, bool(request.param)


@pytest.mark.parametrize("kind", MarkKind)
def test_a_proxy_speaks_for_its_client(
    proxied: tuple[World, bool], family: Any, kit: Any, kind: MarkKind
) -> None:
    """What is the client's is asked of policy; what is the node's own never is."""
    world, has_proxy = proxied
    pod = world.pod(1, 1001, policy=5, flags=EndpointFlags.ENFORCE_INGRESS)
    world.peer(5, FRIEND, Direction.INGRESS, 1)
    world.rule(5, Direction.INGRESS, peer_class=1)
    speaks = has_proxy and kind in (MarkKind.PROXY_INGRESS, MarkKind.PROXY_EGRESS)
    for port, identity in ((4000, FRIEND), (4001, STRANGER), (4002, 0)):
        packet = bytes(family.tcp(family.remote, pod, port, 80))
        outcome = world.to_pod(pod, packet, mark=mark(kind, identity))
        if speaks and identity == STRANGER:
            assert kit.drops(outcome) == [DropReason.POLICY_DENIED]
            continue
        assert outcome.verdict == PASS
        entry = next(one for key, one in world.connections().items() if key.remote_port == port)
        asked = speaks and identity == FRIEND
        assert entry.identity == (FRIEND if asked else 1)
        assert bool(entry.flags & CtFlags.NODE_ORIGIN) == (not asked)


def test_what_a_pod_sends_has_no_mark(family: Any) -> None:
    with World(Path(objects.directory()), {"config_proxy": 1}) as world:
        client, server = world.pod(1, 1001), world.pod(2, 1002)
        packet = bytes(family.tcp(client, server, 4000, 80))
        outcome = world.from_pod(client, packet, mark=mark(MarkKind.PROXY_EGRESS, FRIEND))
        assert outcome.mark == 0
        (entry,) = (one for key, one in world.connections().items() if key.local_port == 80)
        assert entry.identity == 1001
