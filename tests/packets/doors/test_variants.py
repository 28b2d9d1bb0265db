"""Both ways the objects are compiled load here, and do the same with a packet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from podwire.abi.enums import DropReason, EndpointFlags, EventKind
from podwire.bpf.object import ObjectSpec, load
from podwire.datapath import hooks, objects
from podwire.model.rule import Direction
from podwire.testing.world import World

pytestmark = pytest.mark.kernel


def variants() -> list[str]:
    """What this kernel takes: one that takes modern objects takes legacy ones as well."""
    return ["legacy"] if objects.variant() == "legacy" else ["modern", "legacy"]


@pytest.fixture(params=["modern", "legacy"])
def directory(request: pytest.FixtureRequest) -> Path:
    here = Path(objects.directory())
    base = here.parent if here.name == "legacy" else here
    # A kernel that refuses modern objects is given legacy ones twice: nothing is skipped.
    return base / "legacy" if request.param not in variants() or request.param == "legacy" else base


@pytest.mark.parametrize("name", hooks.objects(hooks.Where))
@pytest.mark.parametrize("tunnel", [0, 5], ids=["native", "tunnel"])
def test_every_program_loads(directory: Path, name: str, tunnel: int) -> None:
    spec = ObjectSpec(str(directory / f"{name}.bpf.o"), {"config_tunnel_device": tunnel})
    with load(spec) as loaded:
        for program in loaded.programs.values():
            assert program.info.jited_length or program.info.xlated_length


@pytest.fixture
def world(directory: Path) -> Iterator[World]:
    with World(directory) as made:
        yield made


def test_a_connection_is_allowed_or_denied_and_told(world: World) -> None:
    pod = world.pod(1, 1000, policy=7, flags=EndpointFlags.ENFORCE_EGRESS)
    world.rule(7, Direction.EGRESS, protocol=6, port=80)

    def sent(port: int) -> list[tuple[int, int]]:
        frame = Ether(src=pod.mac.hex(":"), dst=pod.host_mac.hex(":")) / IP(
            src=pod.address(False), dst="8.8.8.8"
        )
        events = world.from_pod(pod, bytes(frame / TCP(sport=4000, dport=port, flags="S"))).events
        # Numbered one after the other, also where the kernel has no atomics that return a value.
        numbers = [int(one["sequence"]) for one in events]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        return [(int(one["kind"]), int(one["reason"])) for one in events]

    assert EventKind.DROP not in [kind for kind, _ in sent(80)]
    assert (EventKind.DROP, DropReason.POLICY_DENIED) in sent(81)
