"""Whoever keeps the others may be killed: another keeps them then, and nothing that runs is ever removed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import podwire
from podwire.base.aio import eventually
from podwire.sandbox import children, orders
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import Places
from podwire.sandbox.runner.process import Process

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def wait_for(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    asyncio.run(eventually(condition, timeout=timeout, what=what))


@pytest.fixture
def places(cli: Run, name: str) -> Iterator[Places]:
    """A sandbox of one node with a pod and an object, both of the test's."""
    up = cli("sandbox", "up", "--name", name, "--nodes", "1", "--ip-family", "dual")
    assert up.returncode == 0, up.stderr
    try:
        made = Places(name, cgroup2())
        kubectl(made, "run", "kept", "--image=nginx")
        kubectl(made, "create", "configmap", "data", "--from-literal=a=b")
        kubectl(made, "wait", "--for=condition=Ready", "pod/kept", "--timeout=30s")
        yield made
    finally:
        assert cli("sandbox", "down", "--name", name).returncode == 0


def kubectl(places: Places, *words: str) -> str:
    command = ["kubectl", "--kubeconfig", str(places.kubeconfig), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def addresses(namespace: str) -> list[dict[str, object]]:
    words = ["ip", "-n", namespace, "-json", "-6", "address", "show", "scope", "global"]
    listed = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    # ip leaves an empty object for each device that has no such address.
    return [one for device in listed for one in device.get("addr_info", []) if one]


def test_an_address_can_be_listened_on_from_the_first_moment(places: Places) -> None:
    """No IPv6 address waits for the kernel to look for duplicates: until it has, bind() fails."""
    for member in ("net", "n1"):
        found = addresses(places.netns(member).name)
        assert found and all(one.get("nodad") for one in found), found


def known(places: Places, name: str) -> Process:
    found = children.claimed(places, name)
    assert found is not None, f"there is no {name}"
    return found


def another(places: Places, name: str, before: Process) -> bool:
    found = children.claimed(places, name)
    return found is not None and found != before


def pods_first_process(places: Places) -> int:
    saved = [json.loads(path.read_text()) for path in places.pods.glob("*/pod.json")]
    first = next((one["first"] for one in saved if one["name"] == "kept"), None)
    return int(first["pid"]) if first else 0


def running(places: Places) -> bool:
    answer = orders.ask(places, {"do": "status"})
    return (
        answer is not None and len(answer["children"]) > 3 and all(one["pid"] for one in answer["children"])
    )


def test_a_killed_keeper_is_succeeded_and_what_ran_is_kept(places: Places) -> None:
    first, names = pods_first_process(places), ("control", "agent n1", "relay")
    before = {name: known(places, name) for name in names}
    killed = known(places, "keeper")
    killed.signal(signal.SIGKILL)
    wait_for(lambda: another(places, "keeper", killed) and running(places), "another keeper")
    assert {name: known(places, name) for name in names} == before
    assert pods_first_process(places) == first
    for name in names:  # it keeps them: what dies is started again
        before[name].signal(signal.SIGKILL)
        wait_for(lambda name=name: another(places, name, before[name]), f"another {name}")  # type: ignore[misc]
    wait_for(lambda: running(places), "all processes")
    kubectl(places, "wait", "--for=condition=Ready", "node/n1", "--timeout=30s")
    assert pods_first_process(places) == first


@pytest.mark.parametrize("left", ["control", "relay", "agent n1"])
def test_whoever_is_left_starts_the_next_keeper(places: Places, left: str) -> None:
    """An agent too: what it starts is of the machine again, not of the node."""
    order = ["guard", "control", "relay", "agent n1"]
    killed = known(places, "keeper")
    gone = [known(places, name) for name in order[: order.index(left)]] + [killed]
    gone += [known(places, "relay")] if left == "control" else []
    first = pods_first_process(places)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another go
        for one in gone:
            one.signal(number)
    wait_for(lambda: another(places, "keeper", killed) and running(places), "another keeper")
    for name in ("keeper", "control"):
        mine, its = (Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", known(places, name).pid))
        assert mine == its, f"{name} is in another network namespace"
    kubectl(places, "wait", "--for=condition=Ready", "node/n1", "pod/kept", "--timeout=30s")
    assert pods_first_process(places) == first


def test_a_keeper_that_is_stopped_restarts_an_agent_when_it_goes_on(cli: Run, places: Places) -> None:
    """The command says as much, and does not say that it was done."""
    keeping, agent = known(places, "keeper"), known(places, "agent n1")
    keeping.signal(signal.SIGSTOP)
    try:
        asked = cli("sandbox", "restart-agent", "--name", places.name, "n1")
        assert asked.returncode == 1
        assert "does not answer yet" in asked.stderr and str(keeping.pid) in asked.stderr
        assert known(places, "agent n1") == agent
    finally:
        keeping.signal(signal.SIGCONT)
    wait_for(lambda: another(places, "agent n1", agent), "another agent")


def test_up_never_removes_what_runs(cli: Run, places: Places) -> None:
    """Whoever of the sandbox is missing, and whatever the command asks for."""
    first = pods_first_process(places)
    system = [known(places, name) for name in ("guard", "keeper", "control", "agent n1", "relay")]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for one in system:
            one.signal(number)
    wait_for(lambda: not any(one.alive for one in system), "the end of all but pods")
    listed = json.loads(cli("sandbox", "list", "-o", "json").stdout)
    assert next(one["state"] for one in listed if one["name"] == places.name) == "incomplete"
    up = cli("sandbox", "up", "--name", places.name, "--nodes", "2")
    assert up.returncode == 1
    assert "had lost its keeper" in up.stderr and "runs already" in up.stderr
    wait_for(lambda: running(places), "all processes")
    assert kubectl(places, "get", "configmap", "data", "-o", "jsonpath={.data.a}") == "b"
    kubectl(places, "wait", "--for=condition=Ready", "node/n1", "pod/kept", "--timeout=30s")
    assert pods_first_process(places) == first


def test_nothing_said_to_a_keeper_ends_it(places: Places) -> None:
    before = known(places, "keeper")
    for words in (
        b"[]\n",
        b"null\n",
        b"{\n",
        b"\xff\n",
        b"x" * 10000,
        b'{"do": []}\n',
        b'{"what": {}, "do": "restart"}\n',
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(places.keeper_socket))
            try:
                connection.sendall(words)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(4096)
            except ConnectionError:
                continue  # it hung up on us
    assert running(places)
    assert known(places, "keeper") == before


def test_restarting_runs_the_code_that_is_there_now(cli: Run, places: Places) -> None:
    """The keeper forks from what it has loaded; one that is older than the code becomes a new one first."""
    before, agent = known(places, "keeper"), known(places, "agent n1")
    source = Path(podwire.__file__)
    times = source.stat()
    command = Path(f"/proc/{before.pid}/cmdline")
    assert b"successor" not in command.read_bytes()
    os.utime(source)
    try:
        assert cli("sandbox", "restart-agent", "--name", places.name, "n1").returncode == 0
        wait_for(lambda: another(places, "agent n1", agent), "another agent")
    finally:
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert b"successor" in command.read_bytes()
    assert known(places, "keeper") == before  # the same process: its children are still its children
    wait_for(lambda: running(places), "all processes")


def test_a_keeper_that_comes_too_late_ends(places: Places) -> None:
    from podwire.sandbox import succession

    before = known(places, "keeper")
    late = subprocess.run(succession.words(places, []), capture_output=True, check=False, timeout=60)
    assert late.returncode == 1
    assert "runs already" in (places.logs / "keeper.log").read_text()
    assert known(places, "keeper") == before


def answers(cli: Run, places: Places, pod: str) -> bool:
    """Whether the pod is ready and reached from its node."""
    found = json.loads(kubectl(places, "get", "pod", pod, "-o", "json"))["status"]
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in found.get("conditions") or [])
    if not ready or not found.get("podIP"):
        return False
    curl = ["curl", "-s", "-m", "2", "-o", "/dev/null", f"http://{found['podIP']}"]
    return cli("sandbox", "node", "--name", places.name, "n1", "--", *curl).returncode == 0


def control_killed(places: Places, meanwhile: Callable[[], None]) -> None:
    """Without a control process for the time of `meanwhile`: the keeper does not see its end until then."""
    keeping, control = known(places, "keeper"), known(places, "control")
    keeping.signal(signal.SIGSTOP)
    try:
        control.signal(signal.SIGKILL)
        wait_for(lambda: not control.alive, "the end of the control process")
        meanwhile()
    finally:
        keeping.signal(signal.SIGCONT)
    wait_for(lambda: another(places, "control", control), "another control process")


def test_a_pod_that_died_while_nobody_looked_gets_a_place_with_a_network(cli: Run, places: Places) -> None:
    first = pods_first_process(places)
    control_killed(places, lambda: os.kill(first, signal.SIGKILL))
    wait_for(lambda: pods_first_process(places) not in (0, first), "another first process")
    wait_for(lambda: answers(cli, places, "kept"), "the pod's answer")
    restarts = "jsonpath={.status.containerStatuses[0].restartCount}"
    assert kubectl(places, "get", "pod", "kept", "-o", restarts) == "1"


def test_a_pod_that_was_being_made_when_the_control_process_was_killed(cli: Run, places: Places) -> None:
    """It has a first process and no network yet: the agent is stopped while it is asked for one."""
    agent = known(places, "agent n1")
    agent.signal(signal.SIGSTOP)
    try:
        kubectl(places, "run", "half", "--image=nginx")
        wait_for(lambda: half_made(places), "half a place")
        control_killed(places, lambda: agent.signal(signal.SIGCONT))
    finally:
        agent.signal(signal.SIGCONT)
    wait_for(lambda: answers(cli, places, "half"), "the pod's answer")


def half_made(places: Places) -> bool:
    saved = [json.loads(path.read_text()) for path in places.pods.glob("*/pod.json")]
    return any(one["name"] == "half" and one["first"] and not one["attached"] for one in saved)
