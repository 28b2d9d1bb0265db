"""Every process of a sandbox is killed, stopped and delayed at random moments, and clocks are set; then
everything is as it was, without a command, and what policy denies never passed.

``PODWIRE_CHAOS_SECONDS`` says for how long (`make soak` for minutes), ``PODWIRE_CHAOS_SEED`` with which
random numbers. Processes are ended by pid and start time, never by name.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwire.base.aio import Supervised, cancelling
from podwire.base.errors import PodwireError
from podwire.sandbox import children, view
from podwire.sandbox.runner.process import Process
from podwire.testing import leaks
from podwire.testing.cluster import Cluster, run

SECONDS = float(os.environ.get("PODWIRE_CHAOS_SECONDS", "90"))
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(SECONDS + 240)]
Object = dict[str, Any]

WITHIN = 30.0  # s until all is well again
LONG = 45.0  # s of a stop that is longer than a node may be silent, and an agent away
LAB = "nodes: 2\nmanifests: [pods.yaml]\n"
PODS = {"web-1": "n1", "web-2": "n2", "friend-1": "n1", "friend-2": "n2", "stranger": "n2"}
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""


def manifests() -> str:
    pods = [
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name.partition("-")[0]}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, image: {"nginx" if name.startswith("web") else "busybox"}}}]
"""
        for name, node in PODS.items()
    ]
    service = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
    return "---".join([*pods, service])


class Chaos:
    """What is done to a sandbox, and a line for each, to be read when it fails."""

    def __init__(self, lab: Cluster, chance: random.Random) -> None:
        self.lab, self.chance = lab, chance
        self.places, self.plan = view.open_sandbox(lab.name)
        self.stopped: list[Process] = []
        self.began = time.monotonic()
        self.denied = 0  # tries of the stranger that did not pass

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.2f} {text}", flush=True)

    def victims(self) -> dict[str, Process]:
        """Everything that runs of the sandbox's own, and the first process of each pod."""
        names = ["keeper", "guard", "control", "relay", *(f"agent {node.name}" for node in self.plan.nodes)]
        found = {name: children.claimed(self.places, name) for name in names}
        for pod in view.pods(self.places):
            found[f"pod {pod.name}"] = pod.first
        return {name: one for name, one in found.items() if one is not None and one.alive}

    async def run(self, seconds: float) -> None:
        """For so long; what was stopped goes on at the end."""
        deeds = [*[self.kill, self.stop] * 3, *[self.stutter, self.set_clock] * 2, self.blind, self.behead]
        async with Supervised("chaos") as group:
            group.once("a long stop", self._hold(self.chance.choice(["control", "agent n2"]), LONG))
            try:
                while time.monotonic() - self.began < seconds:
                    group.once("a deed", self.chance.choice(deeds)())
                    await asyncio.sleep(self.chance.uniform(0.1, 2.5))  # the moment is what is tested
            finally:
                for one in self.stopped:
                    one.signal(signal.SIGCONT)

    def pick(self) -> tuple[str, Process] | None:
        found = sorted(self.victims().items())
        return self.chance.choice(found) if found else None

    async def kill(self) -> None:
        if (picked := self.pick()) is not None:
            self.say(f"kill {picked[0]}")
            picked[1].signal(signal.SIGKILL)

    async def stop(self) -> None:
        if (picked := self.pick()) is not None:
            await self._hold(picked[0], self.chance.uniform(0.1, 6.0))

    async def _hold(self, name: str, seconds: float) -> None:
        one = self.victims().get(name)
        if one is None:
            return
        self.say(f"stop {name} for {seconds:.1f} s")
        self.stopped.append(one)
        one.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)  # for as long as it is stopped
        one.signal(signal.SIGCONT)

    async def blind(self) -> None:
        """Nobody runs pods for a while, and nobody starts who does: what dies meanwhile is found later."""
        control = self.victims().get("control")
        if control is not None:
            self.say("kill control, and")
            control.signal(signal.SIGKILL)
            await self._hold("keeper", self.chance.uniform(2.0, 15.0))

    async def behead(self) -> None:
        """Of all who keep others at once, only agents are left, who look last."""
        found = self.victims()
        heads = [name for name in ("keeper", "guard", "control", "relay") if name in found]
        self.say(f"kill {', '.join(heads)}")
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another go
            for name in heads:
                found[name].signal(number)

    async def stutter(self) -> None:
        """A process that gets little of the processor."""
        if (picked := self.pick()) is None:
            return
        self.say(f"delay {picked[0]}")
        self.stopped.append(picked[1])
        for _ in range(self.chance.randint(5, 40)):
            picked[1].signal(signal.SIGSTOP)
            await asyncio.sleep(0.08)  # for as long as it is stopped
            picked[1].signal(signal.SIGCONT)
            await asyncio.sleep(0.02)  # for as long as it runs

    async def set_clock(self) -> None:
        """As a node writes whose clock was set, far back or ahead."""
        node = self.chance.choice(self.plan.nodes).name
        year = self.chance.choice([1999, 2025, 2099])
        self.say(f"the clock of {node} says {year}")
        moment = f"{year}-01-01T00:00:00.{self.chance.randrange(10**6):06}Z"
        patch = msgspec.json.encode({"spec": {"renewTime": moment}}).decode()
        words = ["-n", "kube-node-lease", "patch", "lease", node, "--type=merge", "-p", patch]
        await kubectl(self.lab, *words)  # which nobody answers while the API is away

    # -- meanwhile

    async def stranger(self) -> None:
        """Tries all the time what the policy denies."""
        while True:
            targets = ["web", *(address for pod in self.web() for address in pod)]
            for target in targets:
                code = await fetch(self.lab, "stranger", target)
                assert code != "200", (
                    f"denied traffic passed, to {target}, {time.monotonic() - self.began:.2f} s"
                )
                self.denied += code is not None
            await asyncio.sleep(0.05)  # between tries

    def web(self) -> list[tuple[str, ...]]:
        return [pod.addresses for pod in self.lab.pods if pod.name.startswith("web")]


async def kubectl(lab: Cluster, *words: str) -> tuple[int | None, str]:
    """(exit code, output); None where there was none within 10 s."""
    command = ["kubectl", "--kubeconfig", str(lab.kubeconfig), "--request-timeout=8s", *words]
    child = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(10):
            output, _ = await child.communicate()
    except TimeoutError:
        return None, "no answer"
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, output.decode(errors="replace")


async def fetch(lab: Cluster, pod: str, target: str) -> str | None:
    """The HTTP code a pod gets, "000" for none; None where the pod cannot try now."""
    words = ["curl", "-s", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}", f"http://{target}"]
    try:
        done = await lab[pod].exec(*words, timeout=8)
    except (PodwireError, OSError, TimeoutError):
        return None
    return done.stdout or None


async def whole(chaos: Chaos, uids: dict[str, str]) -> str:
    """What is not as it should be; empty if all is."""
    lab = chaos.lab
    wanted = {"keeper", "guard", "control", "relay", "agent n1", "agent n2", *(f"pod {one}" for one in PODS)}
    if missing := wanted - set(chaos.victims()):
        return f"these do not run: {sorted(missing)}"
    code, text = await kubectl(lab, "get", "nodes,pods,endpointslices", "-o", "json")
    if code != 0:
        return f"the API does not answer: {text[-200:]}"
    items: list[Object] = msgspec.json.decode(text)["items"]
    for one in items:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "EndpointSlice":
            if not all(
                end["conditions"]["ready"] for end in one.get("endpoints") or [{"conditions": {"ready": 0}}]
            ):
                return f"{name} is not ready"
        elif not any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"]["conditions"]):
            return f"{name} is not ready"
    if {one["metadata"]["name"]: one["metadata"]["uid"] for one in items if one["kind"] == "Pod"} != uids:
        return "pods are others than before"
    for pod in ("friend-1", "friend-2"):
        for target in ("web", *(address for pod in chaos.web() for address in pod)):
            if (got := await fetch(lab, pod, target)) != "200":
                return f"{pod} gets {got} from {target}"
    code, text = await kubectl(lab, "exec", "friend-1", "--", "echo", "here I am")
    return "" if (code, text.strip()) == (0, "here I am") else f"kubectl exec: {text[-200:]}"


async def eventually_whole(chaos: Chaos, uids: dict[str, str], within: float) -> None:
    deadline = time.monotonic() + within
    while problem := await whole(chaos, uids):
        assert time.monotonic() < deadline, f"not within {within:g} s: {problem}"
        await asyncio.sleep(0.2)  # between looks


@asynccontextmanager
async def at_the_end(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` beside the block; what it found wrong is raised when the block is left."""
    async with cancelling("beside", work) as task:
        yield
        if task.done():
            task.result()


async def show(chaos: Chaos) -> None:
    """What can be seen of a sandbox that did not come back."""
    for path in sorted(chaos.places.logs.glob("*.log")):
        print(f"--- {path.name}", path.read_text(errors="replace")[-3000:], sep="\n")
    print((await kubectl(chaos.lab, "get", "pods,nodes,endpointslices", "-A", "-o", "wide"))[1])
    looks = [("endpoint", "list"), ("service", "list"), ("status", "--verbose")]
    for node in chaos.plan.nodes:
        for words in looks:
            command = [
                sys.executable,
                "-m",
                "podwire.cli",
                *words,
                "--sandbox",
                chaos.lab.name,
                "--node",
                node.name,
            ]
            print("---", node.name, *words, (await run(command, None, 20)).stdout, sep="\n")
    for source, target in (("friend-1", "web"), ("friend-2", "web")):
        words = ["curl", "-sv", "-m", "3", "-o", "/dev/null", f"http://{target}"]
        print("---", source, (await chaos.lab[source].exec(*words)).stderr, sep="\n")
    command = [sys.executable, "-m", "podwire.cli", "hubble", "observe", "--last", "40"]
    server = {**os.environ, "HUBBLE_SERVER": f"unix://{chaos.places.hubble}"}
    print("--- flows", (await run(command, server, 20)).stdout, sep="\n")


async def scenario(folder: Path, chance: random.Random) -> None:
    (folder / "lab.yaml").write_text(LAB)
    (folder / "pods.yaml").write_text(manifests())
    async with Cluster(folder, name=f"chaos{os.getpid()}") as lab:
        chaos = Chaos(lab, chance)
        try:
            assert await fetch(lab, "stranger", "web") == "200"  # what the policy is for
            await lab.apply(POLICY)
            _, text = await kubectl(lab, "get", "pods", "-o", "json")
            uids = {
                one["metadata"]["name"]: one["metadata"]["uid"] for one in msgspec.json.decode(text)["items"]
            }
            assert set(uids) == set(PODS)
            await eventually_whole(chaos, uids, WITHIN)
            async with at_the_end(chaos.stranger()):
                await chaos.run(SECONDS)
                chaos.say("over")
                await eventually_whole(chaos, uids, WITHIN)
                chaos.say("whole again")
            assert chaos.denied > 5, "the stranger could hardly try"
            assert await fetch(lab, "stranger", "web") == "000"
        except AssertionError:
            await show(chaos)
            raise


def test_whatever_is_killed_stopped_or_late_comes_back(tmp_path: Path) -> None:
    seed = int(os.environ.get("PODWIRE_CHAOS_SEED") or random.randrange(1 << 32))
    print("seed", seed, "seconds", SECONDS)

    before = leaks.snapshot()
    asyncio.run(scenario(tmp_path, random.Random(seed)))
    left = leaks.difference(before, leaks.snapshot())
    assert not [one for one in left if f"chaos{os.getpid()}" in one], left
