"""A pod that floods the API server and cluster DNS shuts out nobody but itself."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest
from tests.patience import within

from podwire.base.aio import eventually
from podwire.sandbox import children, view
from podwire.testing.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(within(180))]

# Until it is ended: has as many connections as it gets, and gets one more for each that is closed; and asks
# cluster DNS over UDP without listening.
FLOOD = """
import os, select, socket
dns = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
watch, places = select.poll(), {}
def connect(place):
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(place)
    places[one.fileno()] = one, place
    watch.register(one, select.POLLIN | select.POLLRDHUP)
for place, number in (((os.environ["KUBERNETES_SERVICE_HOST"], 443), 600), ((dns, 53), 100)):
    for _ in range(number):
        connect(place)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
query = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + b"\\1x\\0" + bytes([0, 1, 0, 1])
while True:
    for _ in range(500):
        udp.sendto(query, (dns, 53))
    for fd, _ in watch.poll(10):
        watch.unregister(fd)
        one, place = places.pop(fd)
        one.close()
        connect(place)
    select.select([], [], [], 0.05)
"""
# The code of an answer of cluster DNS over TCP (to `kubernetes.default.svc.cluster.local`), and how many
# of 20 questions over UDP, none asked twice, are answered.
ASK = """
import socket
dns = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
name = b"".join(bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b"."))
query = bytes([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + name + bytes([0, 0, 1, 0, 1])
with socket.create_connection((dns, 53), 10) as one:
    one.sendall(len(query).to_bytes(2, "big") + query)
    print(one.makefile("rb").read(6)[5] & 15)
answered = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.settimeout(5)
    for _ in range(20):
        one.sendto(query, (dns, 53))
        answered += one.recv(512)[:2] == query[:2]
print(answered)
"""


def pod(name: str, *command: str) -> str:
    container = {"name": "c", "image": "busybox", **({"command": list(command)} if command else {})}
    spec = {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [container]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    return msgspec.json.encode(body).decode() + "\n"


async def scenario(folder: Path) -> None:
    python = os.path.realpath(sys.executable)
    (folder / "lab.yaml").write_text("nodes: 1\nmanifests: [pod.yaml]\n")
    (folder / "pod.yaml").write_text(pod("other"))
    async with Cluster(folder, name=f"api{os.getpid()}") as lab:
        places, _ = view.open_sandbox(lab.name)
        await lab.apply(pod("flood", python, "-c", FLOOD))
        address = lab["flood"].address

        def refused() -> bool:
            log = (places.logs / "control.log").read_text()
            return (
                all(
                    f"{what}: no room for one more of {address}" in log
                    for what in ("connections to the API server", "TCP connections to cluster DNS")
                )
                and f"cluster DNS: too many queries of {address}" in log
            )

        await eventually(refused, timeout=within(30), what="the flood to be refused")
        ready = await lab["other"].exec("sh", "-c", "curl -sk -m 10 https://$KUBERNETES_SERVICE_HOST/readyz")
        assert ready.stdout == "ok", ready
        asked = await lab["other"].exec(python, "-c", ASK)
        assert asked.stdout == "0\n20\n", asked
        before = children.claimed(places, "agent n1")
        await lab.restart_agent("n1")
        await eventually(
            lambda: children.claimed(places, "agent n1") not in (None, before),
            timeout=within(30),
            what="another agent",
        )
        await lab.apply(pod("late"))  # which needs the new agent, and that the API


def test_a_pod_that_floods_shuts_out_nobody_else(tmp_path: Path) -> None:
    asyncio.run(scenario(tmp_path))
