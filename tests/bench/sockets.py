"""connect() to a Service against connect() to its backend: one Service, and random ones of 30,000.

Real sockets of a cgroup and a network namespace of our own, each second one to a Service; both end at one
listener, so the Service is all that differs. Rows of Services nobody has asked lately are cold, which is
what a busy node with many Services sees. `python tests/bench/sockets.py`.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.packets.datapath.test_sockets import Sockets  # noqa: E402

from podwire.abi.enums import FRONTEND_SLOTS  # noqa: E402
from podwire.abi.structs import Backend, FrontendKey, RevNat, Slot, SlotKey  # noqa: E402
from podwire.base.addresses import pack  # noqa: E402
from podwire.net import namespaces  # noqa: E402
from podwire.testing.world import frontend  # noqa: E402

TCP, PORT = 6, 80
ROUNDS, BURST = 15, 400
SEED = 20261128


def serve(sockets: Sockets, count: int, per: int, port: int) -> list[str]:
    """Addresses of `count` Services with `per` backends each, all of them one listener."""
    numbers = list(range(1, count + 1))
    random.Random(SEED).shuffle(numbers)  # so that neighbours in one map are none in the next
    where = pack("127.0.0.1")
    names = {number: f"10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}" for number in numbers}
    slots = {number: [Slot(where, port, number * per + place) for place in range(per)] for number in numbers}
    many = per > FRONTEND_SLOTS
    maps = sockets.maps
    maps["backends"].put_many(
        (slot.backend, Backend(where, port, TCP)) for number in numbers for slot in slots[number]
    )
    if many:
        maps["slots"].put_many(
            (SlotKey(number, place), slot) for number in numbers for place, slot in enumerate(slots[number])
        )
    maps["rev_nat"].put_many((number, RevNat(pack(names[number]), PORT)) for number in numbers)
    maps["frontends"].put_many(
        (
            FrontendKey(pack(names[number]), PORT, TCP),
            frontend(number, slots[number], many=many),
        )
        for number in numbers
    )
    return list(names.values())


def connected(server: socket.socket, client: socket.socket, address: tuple[str, int]) -> int:
    """ns of connect() alone; both ends are closed afterwards."""
    begin = time.perf_counter_ns()
    client.connect(address)
    took = time.perf_counter_ns() - begin
    server.accept()[0].close()
    client.close()
    return took


def rounds(sockets: Sockets, server: socket.socket, targets: list[str]) -> list[tuple[float, float]]:
    """(median of direct, median of Services) of each round, ns."""
    port = server.getsockname()[1]
    dice = random.Random(SEED)
    found = []
    for _ in range(ROUNDS):
        direct, served = [], []
        for _ in range(BURST):
            direct.append(connected(server, socket.socket(), ("127.0.0.1", port)))
            served.append(connected(server, socket.socket(), (dice.choice(targets), PORT)))
        found.append((median(direct), median(served)))
        sockets.ring.read()
    return found


def measure(what: str, count: int, per: int) -> None:
    with ExitStack() as stack:
        sockets = Sockets(stack)
        server = stack.enter_context(sockets.open(socket.AF_INET))
        server.settimeout(10)
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        targets = serve(sockets, count, per, server.getsockname()[1])
        with sockets.inside():
            found = namespaces.run(sockets.namespace, rounds, sockets, server, targets)
        added = median(served - direct for direct, served in found)
        ratio = median(served / direct for direct, served in found)
        print(f"connect, {what}: added  {added:,.0f} ns")
        print(f"connect, {what}: of direct  {ratio:.3f} ×", flush=True)


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    measure("1 service", 1, 3)
    measure("random of 30k services × 3", 30_000, 3)
    measure("random of 6k services × 20", 6_000, 20)


if __name__ == "__main__":
    main()
