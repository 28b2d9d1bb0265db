"""What a sandbox keeps on disk, full or corrupt: it says so, goes on where it can, and can be removed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.faults.conftest import Done, new_name, pod, podwire, process, refused, running, wait, well

from podwire.sandbox import checks, view
from podwire.testing.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
RUN = Path("/run/podwire/sandboxes")


@pytest.fixture
def small() -> Iterator[tuple[str, ...]]:
    """Words that run a command where sandboxes have 24 MiB of disk for all they keep."""
    make = f"mkdir -p {RUN}; mount -t tmpfs -o size=24m tmpfs {RUN}; echo made; exec sleep 1000"
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", make], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"made\n"
    try:
        yield ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt")
    finally:
        holder.kill()
        holder.wait()


def test_a_full_disk_is_told_and_outlived(small: tuple[str, ...], tmp_path: Path) -> None:
    name = new_name()
    (tmp_path / "pods.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod("server", image="web"), pod("client")]})
    )
    (tmp_path / "lab.yaml").write_text("nodes: 1\nmanifests: [pods.json]\n")

    def run(*words: str, stdin: str = "") -> Done:
        command = [*small, *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def kubectl(*words: str) -> Done:
        return run("kubectl", "--kubeconfig", f"{RUN}/{name}/kubeconfig", *words)

    def reach() -> bool:
        words = f"sandbox exec --name {name} client -- curl -s -m 2 http://{address}"
        tried = podwire(*words.split(), before=small)
        return tried.returncode == 0

    up = podwire("sandbox", "up", "--name", name, "-f", str(tmp_path), before=small)
    assert up.returncode == 0, up.stderr
    try:
        address = kubectl("get", "pod", "server", "-o", "jsonpath={.status.podIP}").stdout
        assert reach()
        run("sh", "-c", f"head -c 64M /dev/zero > {RUN}/filler; true")
        full = kubectl("create", "configmap", "big", "--from-literal=a=" + "x" * 60_000)
        for number in range(20):  # what the database has allocated already may do for some
            if full.returncode:
                break
            full = kubectl("create", "configmap", f"big{number}", "--from-literal=a=" + "x" * 60_000)
        assert full.returncode != 0
        assert "cannot write configmaps" in full.stderr and "full" in full.stderr, full.stderr
        assert kubectl("get", "configmap", "big20").returncode != 0
        assert reach(), "pods go on"
        assert kubectl("get", "pods").returncode == 0, "what is known can be read"
        assert run(sys.executable, "-m", "podwire.cli", "status", "--sandbox", name).stdout
        run("rm", f"{RUN}/filler")
        wait(lambda: kubectl("create", "configmap", "fits", "--from-literal=a=b").returncode == 0, "room")
        assert (
            kubectl(
                "run", "later", "--image=busybox", "--restart=Never", "--command", "--", "sleep", "9"
            ).returncode
            == 0
        )
        ready = kubectl("wait", "--for=condition=Ready", "pod/later", "--timeout=30s")
        assert ready.returncode == 0, ready.stderr
        assert reach()
    finally:
        down = podwire("sandbox", "down", "--name", name, before=small)
    assert down.returncode == 0, down.stderr


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("lab"), "nodes: 1\n") as cluster:
        asyncio.run(cluster.apply(pod("server", image="web"), pod("client")))
        yield cluster


def in_node(lab: Cluster, config: Path) -> Done:
    """Another agent, with `config`, where n1's runs; it must end by itself."""
    places, _ = view.open_sandbox(lab.name)
    words = [str(checks.init_program()), "exec", "--netns", str(places.netns("n1"))]
    words += ["--cgroup", str(places.agent_cgroup("n1")), "--", sys.executable, "-m", "podwire.agent"]
    return subprocess.run(
        [*words, "--config", str(config)], capture_output=True, text=True, timeout=60, check=False
    )


def reach(lab: Cluster) -> bool:
    return asyncio.run(lab["client"].can_reach(lab["server"], port=80))


def test_a_second_agent_of_a_node_is_refused(lab: Cluster) -> None:
    first = process(lab, "agent n1")
    done = in_node(lab, lab.directory / "nodes" / "n1" / "agent.json")
    assert done.returncode == 1
    assert "another agent uses" in done.stderr and "Traceback" not in done.stderr
    assert process(lab, "agent n1") == first and well(lab) and reach(lab)


WRONG: dict[str, tuple[Callable[[dict[str, object]], dict[str, object]], str]] = {
    "unknown key": (lambda config: config | {"colour": "red"}, "colour"),
    "wrong type": (lambda config: config | {"ct-max": "many"}, "ct-max"),
    "too small": (lambda config: config | {"policy-map-max": 1}, "policy-map-max"),
    "no kubeconfig": (lambda config: config | {"kubeconfig": "/nowhere/kubeconfig"}, "/nowhere/kubeconfig"),
    "no bpffs there": (lambda config: config | {"bpf-dir": "/tmp/nowhere"}, "/tmp/nowhere is not on a bpf"),
    "no such device": (lambda config: config | {"device": "eth7"}, "eth7"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_configuration_ends_an_agent_in_a_sentence(lab: Cluster, tmp_path: Path, what: str) -> None:
    change, told = WRONG[what]
    config = json.loads((lab.directory / "nodes" / "n1" / "agent.json").read_text())
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(change(config | {"run-dir": str(tmp_path / "run")})))
    done = in_node(lab, path)
    assert done.returncode in (1, 2), done.stderr
    assert told in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert well(lab) and reach(lab)


def test_a_corrupt_endpoint_file_is_named_and_left_alone(lab: Cluster) -> None:
    folder = lab.directory / "nodes" / "n1" / "endpoints"
    bad = folder / "60000.json"
    bad.write_bytes(b"\x00\xff{not json")
    old = process(lab, "agent n1")
    podwire("sandbox", "restart-agent", "--name", lab.name, "n1")
    wait(lambda: process(lab, "agent n1") not in (0, old) and well(lab), "the agent")
    assert "endpoint file 60000.json cannot be used" in (lab.directory / "logs" / "agent-n1.log").read_text()
    assert bad.exists() and reach(lab)
    bad.unlink()


def test_a_corrupt_node_copy_is_no_copy(lab: Cluster) -> None:
    (lab.directory / "nodes" / "n1" / "node.json").write_bytes(b"\xff\x00")
    old = process(lab, "agent n1")
    podwire("sandbox", "restart-agent", "--name", lab.name, "n1")
    wait(lambda: process(lab, "agent n1") not in (0, old) and well(lab), "the agent")
    assert reach(lab)


def test_a_dead_pods_init_is_replaced(lab: Cluster) -> None:
    """kill -9 of what a pod's namespaces hang on: the pod's restart policy brings it back."""
    saved = next(one for one in view.pods(view.open_sandbox(lab.name)[0]) if one.name == "client")
    before = next(iter(saved.runs.values())).process.pid
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        again = [one for one in view.pods(view.open_sandbox(lab.name)[0]) if one.name == "client"]
        runs = [run.process for one in again for run in one.runs.values()]
        return any(one.alive and one.pid != before for one in runs)

    wait(back, "the pod's next init")
    wait(lambda: reach(lab), "the pod")


def test_a_corrupt_database_is_named_and_the_sandbox_can_be_removed(tmp_path: Path) -> None:
    name = new_name()
    assert podwire("sandbox", "up", "--name", name, "--nodes", "1").returncode == 0
    places, _ = view.open_sandbox(name)
    try:
        cluster = Cluster(tmp_path, name=name)
        for path in places.api.glob("objects.db*"):
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.write(os.urandom(min(size, 65536)))
        os.kill(process(cluster, "control"), signal.SIGKILL)
        log = places.logs / "control.log"
        wait(lambda: "cannot open the API server's database" in log.read_text(), "the reason in the log")
        assert "Traceback" not in log.read_text()
        assert podwire("status", "--sandbox", name).stdout.startswith("Podwire"), "the agent goes on"
        places.state.write_bytes(b"\xff{")
        listed = podwire("sandbox", "list")
        assert listed.returncode == 0 and name in listed.stdout
        refused(podwire("sandbox", "node", "--name", name, "n1", "--", "true"), name)
        with places.record.open("ab") as file:
            file.write(b'\x00\xff\n{"kind":"moon","path":"/moon"}\n[1]\n')
    finally:
        down = podwire("sandbox", "down", "--name", name)
    assert down.returncode == 0, down.stderr
    assert not places.directory.exists()
