"""ns per packet of the shipped programs, by BPF_PROG_TEST_RUN.

`python tests/bench/packets.py [--json] [PART …]`, parts: established decisions new_flows services.

A small program (vary.bpf.c) writes another packet at each repetition of the kernel's loop and goes on to the
program that is measured; what the loop and the writing cost is measured alone and taken off. Each
figure is the best of several rounds, for whatever disturbs a round only adds to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from struct import pack as bytes_of

from podwire.abi.enums import Direction, EndpointFlags
from podwire.abi.structs import Backend, FrontendKey, RevNat, Slot
from podwire.base.addresses import pack
from podwire.bpf.map import U32, raw
from podwire.bpf.object import Object, ObjectSpec, SkbContext, load
from podwire.datapath import objects
from podwire.datapath import rows as rows_of
from podwire.net import namespaces
from podwire.state.tables import PeerRow
from podwire.testing.world import UNDERLAY, UNDERLAY_MAC, Pod, World, frontend

ROOT = Path(__file__).parents[2]
REPEAT, ROUNDS = 100_000, 7
ENFORCE = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
SYN, ACK = 0x02, 0x10
FAR = 0x0A090000  # 10.9.0.0


def address_of(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def tcp(mac: bytes, to_mac: bytes, source: str, to: str, sport: int, dport: int, flags: int) -> bytes:
    """An IPv4 TCP frame; nothing in these programs reads its checksums."""
    head = bytes_of("!BBHHHBBH", 0x45, 0, 40, 1, 0x4000, 64, 6, 0) + pack(source)[12:] + pack(to)[12:]
    segment = bytes_of("!HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 1000, 0, 0)
    return to_mac + mac + b"\x08\x00" + head + segment


class Bench:
    """A world with two pods and the varying program in front of what is measured."""

    def __init__(self, vary: Path) -> None:
        self._vary = vary
        self.results: dict[str, tuple[float, float | None]] = {}
        self.overhead = 0.0
        self.fresh()

    def fresh(self, events: bool = False, share: int = 0) -> None:
        """A world without rows or connections; `share` of the connections is one pod's, 0 = as shipped."""
        if hasattr(self, "world"):
            self.world.close()
        constants: dict[str, int | bytes] = {
            "config_trace_interval": 3600,
            "config_verdict_events": int(events),
            "config_trace_events": int(events),
        }
        if share:
            constants["config_ct_share"] = share
        self.world = World(Path(objects.directory()), constants, {"podwire_policy_peers": 131072})
        self.client = self.world.pod(1, 1001)
        self.server = self.world.pod(2, 1002)

    def run(
        self,
        program: str,
        frame: bytes,
        device: int,
        repeat: int = REPEAT,
        rounds: int = ROUNDS,
        **varying: int,
    ) -> float:
        """ns of one packet, the loop's own cost taken off; `varying` are constants of vary.bpf.c."""
        with load(ObjectSpec(str(self._vary), dict(varying), {}), self.world.shared()) as loaded:
            target = loaded.programs["nothing"] if program == "nothing" else self.world.programs[program]
            with loaded.maps["next_program"].typed(U32, U32) as table:
                table[0] = target.fileno()
            with loaded.maps["template"].typed(U32, raw(64)) as template:
                template[0] = frame.ljust(64, b"\0")
            best = namespaces.run(self.world.namespace, self._rounds, loaded, frame, device, repeat, rounds)
        return best - self.overhead

    @staticmethod
    def _rounds(loaded: Object, frame: bytes, device: int, repeat: int, rounds: int) -> float:
        run = loaded.programs["vary"].test_run
        return min(run(frame, SkbContext(ifindex=device), repeat).duration_ns for _ in range(rounds))

    def say(self, name: str, value: float, target: float | None = None) -> None:
        self.results[name] = value, target
        if "--json" not in sys.argv:
            wanted = f"target {target:4.0f}  {'met' if value <= target else 'not met'}" if target else ""
            print(f"{name:62} {value:7.0f} ns  {wanted}", flush=True)

    def sent(self, pod: Pod, to: str, flags: int = ACK) -> bytes:
        return tcp(pod.mac, pod.host_mac, pod.ipv4, to, 4000, 80, flags)

    def enforce(self, flags: int) -> None:
        """Both pods under a policy that allows TCP port 80, with 8 classes of 20 ports besides."""
        world = self.world
        self.client = world.pod(1, 1001, policy=1, flags=flags)
        self.server = world.pod(2, 1002, policy=2, flags=flags)
        for policy, direction in ((1, Direction.EGRESS), (2, Direction.INGRESS)):
            for number in range(9):
                world.rule(policy, direction, protocol=6, port=80, peer_class=number)
                for port in range(20):
                    world.rule(policy, direction, protocol=6, port=8000 + port, peer_class=number)


def to(number: int) -> dict[str, int]:
    return {"destination_base": number}


def ground(bench: Bench) -> None:
    bench.overhead = 0
    frame = bench.sent(bench.client, address_of(FAR))
    varying = {"source_port_mask": 4095, "destination_mask": 255, **to(FAR)}
    bench.overhead = bench.run("nothing", frame, bench.client.device, **varying)
    bench.say("the loop and the writing of packets (taken off below)", bench.overhead)


def answered(bench: Bench, frame: bytes, back: bytes, backwards: str, device: int) -> None:
    """A connection that both sides have spoken on."""
    world = bench.world
    world.run("from_pod", frame[:47] + bytes([SYN]) + frame[48:], bench.client.device)
    world.run(backwards, back[:47] + bytes([SYN | ACK]) + back[48:], device)


def established(bench: Bench) -> None:
    for flags in (0, ENFORCE):
        name = "policy" if flags else "no policy"
        bench.fresh()
        bench.enforce(flags)
        client, server, world = bench.client, bench.server, bench.world
        far = address_of(FAR)
        away = bench.sent(client, far)
        back = tcp(b"\x02" * 6, UNDERLAY_MAC, far, client.ipv4, 80, 4000, ACK)
        underlay = world.device(UNDERLAY)
        answered(bench, away, back, "from_network", underlay)
        there = {"source_port_base": 4000, **to(FAR)}
        bench.say(
            f"established, pod to another node, {name}",
            bench.run("podwire_from_pod", away, client.device, **there),
            150,
        )
        here = {
            "source_port_base": 80,
            "destination_port": 4000,
            **to(int.from_bytes(pack(client.ipv4)[12:], "big")),
        }
        bench.say(
            f"established, network to pod, {name}",
            bench.run("podwire_from_network", back, underlay, **here),
            150,
        )
        near = bench.sent(client, server.ipv4)
        other = tcp(server.mac, server.host_mac, server.ipv4, client.ipv4, 80, 4000, ACK)
        answered(bench, near, other, "from_pod", server.device)
        here = {"source_port_base": 4000, **to(int.from_bytes(pack(server.ipv4)[12:], "big"))}
        bench.say(
            f"established, pod to pod (both sides' entries), {name}",
            bench.run("podwire_from_pod", near, client.device, **here),
        )


def decisions(bench: Bench) -> None:
    """A known flow that is asked about at each packet: with a policy, less the same without one.

    The sender's identity is another one at each packet, so nothing of the answer is in the cache by habit.
    """
    for identities, target in ((1, 120), (65_536, 150)):
        bench.fresh()
        world = bench.world
        server = world.pod(2, 1002, policy=2)
        for peer_class in range(9):
            world.rule(2, Direction.INGRESS, protocol=6, port=80, peer_class=peer_class)
            for port in range(20):
                world.rule(2, Direction.INGRESS, protocol=6, port=8000 + port, peer_class=peer_class)
        rows = (PeerRow(2, Direction.INGRESS, 10_000 + one, 1 + one % 8) for one in range(identities))
        with world.maps["podwire_policy_peers"].untyped() as blocks:
            blocks.put_many(rows_of.policy_peers(rows).items())
        frame = bench.sent(bench.client, server.ipv4)
        varying = {**local(server), "source_port_base": 4000, "identity_device": bench.client.device}
        varying |= {"identity_mask": identities - 1, "bump": 1}
        world.from_pod(bench.client, frame[:47] + bytes([SYN]) + frame[48:])
        without = bench.run("podwire_from_pod", frame, bench.client.device, **varying)
        world.pod(2, 1002, policy=2, flags=EndpointFlags.ENFORCE_INGRESS)
        asked = bench.run("podwire_from_pod", frame, bench.client.device, **varying)
        bench.say(f"policy decision, {identities} identities", asked - without, target)


def local(pod: Pod) -> dict[str, int]:
    return to(int.from_bytes(pack(pod.ipv4)[12:], "big"))


def new_flows(bench: Bench) -> None:
    for flags in (0, ENFORCE):
        for name, far in (("another node", True), ("the world", True), ("pod (two entries)", False)):
            best = 10**9
            for _ in range(3):
                bench.fresh()
                bench.enforce(flags)
                if name == "another node":
                    bench.world.known(address_of(FAR), 1003)
                where = to(FAR) if far else local(bench.server)
                frame = bench.sent(bench.client, address_of(where["destination_base"]))
                varying = {"source_port_mask": 32767, "flags": SYN, **where}
                ns = bench.run("podwire_from_pod", frame, bench.client.device, 20_000, 1, **varying)
                best = min(best, ns)
            policy = "policy" if flags else "no policy"
            bench.say(
                f"new flow whole, pod to {name}, {policy}", best, 380 if name == "another node" else None
            )


def services(bench: Bench) -> None:
    """What a Service adds: its flow's walk less the walk of as many flows straight to as many addresses.

    One pod has the flows that many have elsewhere, so it may have all of the table: beyond a share, flows
    are in the overflow, which is measured by itself.
    """
    for count in (1, 30_000):
        bench.fresh(share=65536)
        _balance(bench.world, count)
        mask = (1 << count.bit_length() - 1) - 1
        hot = "1 service" if count == 1 else f"hot service of {count}"
        for name, random_bits, target in ((hot, 0, 200), (f"random services of {count}", mask, 350)):
            if random_bits or name == hot:
                straight = _walk(bench, FAR, random_bits)
                served = _walk(bench, FIRST_SERVICE, random_bits)
                bench.say(f"whole walk, {name}", served)
                bench.say(f"load balancing, {name}", served - straight, target)
    bench.fresh()
    _balance(bench.world, 30_000)
    bench.say(
        "whole walk, random services of 30000, beyond one pod's share", _walk(bench, FIRST_SERVICE, 16383)
    )


FIRST_SERVICE = 0x0A600000  # 10.96.0.0


def _walk(bench: Bench, first: int, mask: int) -> float:
    """ns of a known flow, to one address or to random ones."""
    client = bench.client
    frame = bench.sent(client, address_of(first))
    varying = {**to(first), "destination_mask": mask, "source_port_base": 4000}
    bench.run("podwire_from_pod", frame, client.device, 300_000 if mask else 10, 1, flags=SYN, **varying)
    return bench.run("podwire_from_pod", frame, client.device, flags=ACK, **varying)


def _balance(world: World, count: int) -> None:
    numbers = range(1, count + 1)
    world.maps["podwire_backends"].put_many((n, Backend(pack(address_of(FAR + n)), 8080, 6)) for n in numbers)
    world.maps["podwire_rev_nat"].put_many(
        (n, RevNat(pack(address_of(FIRST_SERVICE + n - 1)), 80)) for n in numbers
    )
    world.maps["podwire_frontends"].put_many(
        (
            FrontendKey(pack(address_of(FIRST_SERVICE + n - 1)), 80, 6),
            frontend(n, [Slot(pack(address_of(FAR + n)), 8080, n)]),
        )
        for n in numbers
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        vary = Path(directory, "vary.bpf.o")
        command = [
            "clang-16",
            "-O2",
            "-g",
            "-target",
            "bpf",
            "-mcpu=v3",
            f"-I{ROOT / 'build' / 'include'}",
            f"-I{ROOT / 'bpf'}",
        ]
        subprocess.run(
            [*command, "-c", str(Path(__file__).parent / "vary.bpf.c"), "-o", str(vary)], check=True
        )
        bench = Bench(vary)
        parts: list[Callable[[Bench], None]] = [established, decisions, new_flows, services]
        only = [word for word in sys.argv[1:] if not word.startswith("-")]
        try:
            ground(bench)
            for part in parts:
                if not only or part.__name__ in only:
                    part(bench)
        finally:
            bench.world.close()
    if "--json" in sys.argv:
        print(json.dumps(bench.results))


if __name__ == "__main__":
    main()
