"""Sandboxes come up, go, and leave nothing, whoever is killed and whenever."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from podwire.base.aio import eventually
from podwire.sandbox.mounts import cgroup2
from podwire.testing import leaks

pytestmark = pytest.mark.cluster
Run = Callable[..., "subprocess.CompletedProcess[str]"]
TRIES = 6
TWO_NODES = Path(__file__).resolve().parents[3] / "labs" / "two-nodes"


def wait_for(condition: Callable[[], object], what: str, timeout: float = 15) -> None:
    asyncio.run(eventually(condition, timeout=timeout, what=what))


def shown(cli: Run, name: str) -> dict[str, object]:
    listed = json.loads(cli("sandbox", "list", "-o", "json").stdout)
    return next((one for one in listed if one["name"] == name), {})


def pid_of(cli: Run, name: str, process: str) -> int:
    children = shown(cli, name)["processes"]
    assert isinstance(children, list)
    return next(one["pid"] for one in children if one["name"] == process)


def test_up_list_env_and_down(cli: Run, name: str) -> None:
    up = cli("sandbox", "up", "--name", name, "--nodes", "2")
    assert up.returncode == 0, up.stderr
    assert shown(cli, name)["state"] == "running"
    assert shown(cli, name)["nodes"] == ["n1", "n2"]
    env = cli("sandbox", "env", "--name", name).stdout
    assert f"export KUBECONFIG=/run/podwire/sandboxes/{name}/kubeconfig" in env
    assert "export HUBBLE_SERVER=unix:///" in env
    ping = cli("sandbox", "node", "--name", name, "n1", "--", "ping", "-c1", "-W2", "172.30.0.1")
    assert ping.returncode != 0  # no way leads off the sandbox's own underlay
    again = cli("sandbox", "up", "--name", name)
    assert again.returncode == 1
    assert "runs already" in again.stderr
    assert cli("sandbox", "down", "--name", name).returncode == 0
    gone = cli("sandbox", "down", "--name", name)
    assert gone.returncode == 1
    assert "there is no sandbox" in gone.stderr


def test_two_sandboxes_side_by_side(cli: Run, name: str) -> None:
    names = (f"{name}a", f"{name}b")
    try:
        for one in names:
            assert cli("sandbox", "up", "--name", one, "--nodes", "1").returncode == 0
        apis = {shown(cli, one)["api"] for one in names}
        assert len(apis) == 2
        assert cli("sandbox", "down", "--name", names[0]).returncode == 0
        assert shown(cli, names[1])["state"] == "running"
    finally:
        for one in names:
            cli("sandbox", "down", "--name", one)


@pytest.mark.parametrize("process", ["control", "agent n1", "relay"])
def test_a_process_that_is_killed_comes_back(cli: Run, name: str, process: str) -> None:
    assert cli("sandbox", "up", "--name", name, "--nodes", "1").returncode == 0
    try:
        before = pid_of(cli, name, process)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: pid_of(cli, name, process) not in (0, before), f"another {process}")
        assert shown(cli, name)["state"] == "running"
        kubeconfig = f"/run/podwire/sandboxes/{name}/kubeconfig"
        ready = ["kubectl", "--kubeconfig", kubeconfig, "get", "nodes"]
        wait_for(
            lambda: b" Ready" in subprocess.run(ready, capture_output=True, check=False).stdout, "node n1"
        )
    finally:
        cli("sandbox", "down", "--name", name)


@pytest.mark.timeout(300)
def test_up_killed_at_any_moment_leaves_what_down_removes(cli: Run, name: str) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    before = leaks.snapshot()
    for _ in range(TRIES):
        delay = chance.uniform(0.05, 1.2)
        command = [sys.executable, "-m", "podwire.cli", "sandbox", "up", "--name", name, "--nodes", "2"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)  # the moment is what is tested
        child.kill()
        child.wait()
        if chance.random() < 0.5:
            up = cli("sandbox", "up", "--name", name, "--nodes", "2")
            refused = "some of it still runs" in up.stderr or "runs already" in up.stderr
            assert up.returncode == (1 if refused else 0), (delay, up.stderr)
        if Path(f"/run/podwire/sandboxes/{name}").exists():
            down = cli("sandbox", "down", "--name", name)
            assert down.returncode == 0, (delay, down.stderr)
        left = leaks.difference(before, leaks.snapshot())
        assert not [one for one in left if name in one], (delay, left)


@pytest.mark.timeout(300)
def test_processes_killed_in_any_order_leave_what_down_removes(cli: Run, name: str) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    before = leaks.snapshot()
    cgroup = cgroup2() / "podwire" / name
    for _ in range(TRIES // 2):
        up = cli("sandbox", "up", "--name", name, "-f", str(TWO_NODES))
        assert up.returncode == 0, up.stderr
        members = [int(pid) for path in cgroup.rglob("cgroup.procs") for pid in path.read_text().split()]
        assert len(members) > 10
        for pid in chance.sample(members, k=chance.randint(1, len(members))):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it went with another
        for _ in range(2):  # the first down is killed, too
            command = [sys.executable, "-m", "podwire.cli", "sandbox", "down", "--name", name]
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.1, 0.4))  # the moment is what is tested
            child.kill()
            child.wait()
        if Path(f"/run/podwire/sandboxes/{name}").exists():
            down = cli("sandbox", "down", "--name", name)
            assert down.returncode == 0, down.stderr
        assert not [one for one in leaks.difference(before, leaks.snapshot()) if name in one]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_leaves_nothing(name: str, number: int) -> None:
    command = [sys.executable, "-m", "podwire.cli", "sandbox", "up", "--name", name]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    directory = Path(f"/run/podwire/sandboxes/{name}/logs")
    wait_for(directory.exists, "the beginning of up")
    child.send_signal(number)
    _, told = child.communicate(timeout=30)
    assert child.returncode == 130, told.decode()
    assert not directory.parent.exists()


def test_an_up_whose_terminal_goes_leaves_nothing(name: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "podwire.cli", "sandbox", "up", "--name", name])
    directory = Path(f"/run/podwire/sandboxes/{name}")
    try:
        wait_for((directory / "processes" / "control").exists, "the processes of up")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    assert not directory.exists()


def test_an_up_that_was_told_to_outlive_its_terminal_does(cli: Run, name: str) -> None:
    command = [sys.executable, "-m", "podwire.cli", "sandbox", "up", "--name", name, "--nodes", "1"]
    child = subprocess.Popen(["nohup", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(Path(f"/run/podwire/sandboxes/{name}/processes/control").exists, "the processes of up")
        child.send_signal(signal.SIGHUP)
        assert child.wait(60) == 0
        assert shown(cli, name)["state"] == "running"
    finally:
        cli("sandbox", "down", "--name", name)


def test_up_refuses_what_a_killed_up_left_running(cli: Run, name: str) -> None:
    command = [sys.executable, "-m", "podwire.cli", "sandbox", "up", "--name", name, "--nodes", "1"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    control = Path(f"/run/podwire/sandboxes/{name}/processes/control")
    try:
        wait_for(control.exists, "the processes of up")
    finally:
        child.kill()
        child.wait()
    (control.parent.parent / "complete").unlink(missing_ok=True)  # had it come up in that moment
    try:
        wait_for(lambda: shown(cli, name).get("processes"), "a keeper that answers")
        wait_for(lambda: pid_of(cli, name, "control"), "the control process")
        before = pid_of(cli, name, "control")
        again = cli("sandbox", "up", "--name", name)
        assert again.returncode == 1
        assert "some of it still runs" in again.stderr
        assert f"podwire sandbox down --name {name}" in again.stderr
        assert pid_of(cli, name, "control") == before
    finally:
        down = cli("sandbox", "down", "--name", name)
    assert down.returncode == 0, down.stderr


def test_bad_input_is_refused_in_a_sentence(cli: Run, tmp_path: Path) -> None:
    lab = tmp_path / "lab.yaml"
    for text, told in {
        "nodes: 0": "nodes: 0 nodes are not possible",
        "nodes: [n1, n1]": "nodes[1]: “n1” is taken already",
        "colour: red": "colour",
        "worlds: [{name: w, addresses: [10.0.1.7]}]": "10.0.1.7 overlaps 10.0.1.0/24, which node n1",
        "manifests: [nothing.yaml]": "there is no file nothing.yaml",
        "nodes: [": "is not YAML",
    }.items():
        lab.write_text(text)
        refused = cli("sandbox", "up", "-f", str(lab))
        assert refused.returncode != 0
        assert told in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr
    assert "cannot be a sandbox name" in cli("sandbox", "up", "--name", "Not a name").stderr


def test_a_manifest_that_is_refused_leaves_no_sandbox(cli: Run, name: str, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("nodes: 1\nmanifests: [wrong.yaml]\n")
    (tmp_path / "wrong.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Wrong_Name}\nspec: {}\n"
    )
    refused = cli("sandbox", "up", "--name", name, "-f", str(tmp_path))
    assert refused.returncode == 1
    assert "wrong.yaml, line 1" in refused.stderr
    assert shown(cli, name) == {}
