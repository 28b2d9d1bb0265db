"""Pods: what a kubelet does, done with namespaces; seen through the unmodified kubectl."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podwire.base.aio import eventually

pytestmark = pytest.mark.cluster
Kubectl = Callable[..., str]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import asyncio

    from podwire.testing.cluster import Cluster

    folder = tmp_path_factory.mktemp("lab")
    (folder / "lab.yaml").write_text("nodes: 1\n")
    cluster = Cluster(folder)
    with asyncio.Runner() as runner:
        runner.run(cluster.__aenter__())
        try:
            yield str(cluster.kubeconfig)
        finally:
            runner.run(cluster.__aexit__(None, None, None))


@pytest.fixture
def kubectl(kubeconfig: str) -> Kubectl:
    def run(*arguments: str, stdin: str = "", ok: bool = True) -> str:
        command = ["kubectl", "--kubeconfig", kubeconfig, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert not ok or done.returncode == 0, done.stderr
        return done.stdout + ("" if ok else done.stderr)

    return run


def make(kubectl: Kubectl, name: str, container: dict[str, Any] | None = None, **spec: Any) -> None:
    main = {"name": "main", "image": "busybox", **(container or {})}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [main], **spec},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(body))


def status(kubectl: Kubectl, name: str) -> dict[str, Any]:
    return json.loads(kubectl("get", "pod", name, "-o", "json"))["status"]


def wait(condition: Callable[[], object], what: str, timeout: float = 30) -> Any:
    import asyncio

    return asyncio.run(eventually(condition, timeout=timeout, what=what, interval=0.1))


def state(kubectl: Kubectl, name: str) -> dict[str, Any]:
    statuses = status(kubectl, name).get("containerStatuses") or [{"state": {}}]
    return statuses[0]["state"]


def waits_for(kubectl: Kubectl, name: str, reason: str) -> str:
    def there() -> str:
        waiting = state(kubectl, name).get("waiting", {})
        return waiting.get("message", reason) if waiting.get("reason") == reason else ""

    return str(wait(there, f"{name} to wait for {reason}"))


def phase_is(kubectl: Kubectl, name: str, phase: str) -> None:
    wait(lambda: status(kubectl, name).get("phase") == phase, f"{name} to be {phase}")


def test_a_command_runs_with_its_environment(kubectl: Kubectl) -> None:
    env = [
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "GREETING", "value": "I am $(ME)"},
    ]
    script = "echo $GREETING at $ADDRESS; hostname; readlink /proc/self/ns/net; cat /etc/resolv.conf"
    make(kubectl, "speaker", {"command": ["sh", "-c", script], "env": env}, restartPolicy="Never")
    phase_is(kubectl, "speaker", "Succeeded")
    lines = kubectl("logs", "speaker").splitlines()
    assert lines[0].startswith("I am speaker at 10.0.1.")
    assert lines[1] == "speaker"
    assert lines[2] != str(Path("/proc/self/ns/net").readlink())
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in lines
    assert "nameserver 10.96.0.10" in lines
    kubectl("delete", "pod", "speaker")


def test_exit_codes_and_restart_policies(kubectl: Kubectl) -> None:
    make(kubectl, "fails", {"command": ["sh", "-c", "exit 3"]}, restartPolicy="Never")
    phase_is(kubectl, "fails", "Failed")
    assert state(kubectl, "fails")["terminated"]["exitCode"] == 3
    make(kubectl, "again", {"command": ["sh", "-c", "echo run; exit 1"]}, restartPolicy="OnFailure")
    wait(lambda: status(kubectl, "again")["containerStatuses"][0]["restartCount"] >= 2, "two restarts")
    waits_for(kubectl, "again", "CrashLoopBackOff")
    assert "run" in kubectl("logs", "again", "--previous")
    kubectl("delete", "pod", "fails", "again")


def test_what_cannot_run_says_why(kubectl: Kubectl) -> None:
    make(kubectl, "unknown", {"image": "example.com/nothing:1"})
    assert "example.com/nothing:1" in waits_for(kubectl, "unknown", "ErrImageNeverPull")
    make(kubectl, "missing", {"command": ["/no/such/program"]}, restartPolicy="Never")
    phase_is(kubectl, "missing", "Failed")
    assert state(kubectl, "missing")["terminated"]["reason"] == "StartError"
    reference = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "a"}}}
    make(kubectl, "waiting", {"env": [reference]})
    waits_for(kubectl, "waiting", "CreateContainerConfigError")
    kubectl("create", "configmap", "later", "--from-literal=a=1")
    phase_is(kubectl, "waiting", "Running")
    kubectl("delete", "pod", "unknown", "missing", "waiting")
    kubectl("delete", "configmap", "later")


def test_init_containers_run_first_and_in_order(kubectl: Kubectl) -> None:
    volume = {"volumes": [{"name": "shared", "emptyDir": {}}]}
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/mnt"}]}
    init = [
        {"name": f"i{n}", "image": "busybox", "command": ["sh", "-c", f"echo {n} >> /mnt/order"], **mounts}
        for n in (1, 2)
    ]
    make(
        kubectl,
        "ordered",
        {"command": ["cat", "/mnt/order"], **mounts},
        initContainers=init,
        restartPolicy="Never",
        **volume,
    )
    phase_is(kubectl, "ordered", "Succeeded")
    assert kubectl("logs", "ordered").split() == ["1", "2"]
    kubectl("delete", "pod", "ordered")


def test_volumes_are_where_they_are_wanted_and_only_there(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "settings", "--from-literal=colour=red", "--from-literal=size=9")
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "cache", "emptyDir": {}}]
    mounted = [
        {"name": "settings", "mountPath": "/etc/podwire-test/settings"},
        {"name": "settings", "mountPath": "/etc/podwire-test-size", "subPath": "size"},
        {"name": "cache", "mountPath": "/var/lib/podwire-test/cache"},
    ]
    script = (
        "cat /etc/podwire-test/settings/colour /etc/podwire-test-size; echo; hostname; cat /etc/hostname;"
        "cd /var/lib/podwire-test/cache; echo kept > a; cat a; grep ndots /etc/resolv.conf"
    )
    main = {"command": ["sh", "-c", script], "volumeMounts": mounted}
    make(kubectl, "mounts", main, volumes=volumes, restartPolicy="Never")
    phase_is(kubectl, "mounts", "Succeeded")
    lines = ["red9", "mounts", "mounts", "kept", "options ndots:5"]
    assert kubectl("logs", "mounts").splitlines() == lines
    assert not Path("/etc/podwire-test").exists()
    assert not Path("/var/lib/podwire-test").exists()
    main["volumeMounts"] = [{"name": "cache", "mountPath": "/podwire-test"}]
    make(kubectl, "refused", main, volumes=volumes)
    assert "mkdir -p /podwire-test" in waits_for(kubectl, "refused", "CreateContainerConfigError")
    kubectl("delete", "pod", "mounts", "refused")
    kubectl("delete", "configmap", "settings")


def test_readiness_and_liveness(kubectl: Kubectl) -> None:
    server = {
        "image": "web",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/status/200", "port": "http"}},
    }
    make(kubectl, "ready", server)
    kubectl("wait", "--for=condition=Ready", "pod/ready", "--timeout=30s")
    unready = {
        **server,
        "readinessProbe": {"httpGet": {"path": "/status/503", "port": "http"}, "failureThreshold": 1},
    }
    make(kubectl, "unready", unready)
    wait(lambda: "statuscode: 503" in kubectl("get", "events", "-o", "yaml"), "the reason in an event")
    assert not status(kubectl, "unready")["containerStatuses"][0]["ready"]
    liveness = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    make(kubectl, "dying", {"livenessProbe": liveness})
    wait(
        lambda: status(kubectl, "dying")["containerStatuses"][0]["restartCount"] > 0, "a restart by liveness"
    )
    kubectl("delete", "pod", "ready", "unready", "dying")


def test_exec_logs_and_port_forward(kubectl: Kubectl, kubeconfig: str) -> None:
    make(kubectl, "web", {"image": "web", "readinessProbe": {"tcpSocket": {"port": 80}}})
    kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
    assert kubectl("exec", "web", "--", "hostname").strip() == "web"
    assert kubectl("exec", "-i", "web", "--", "cat", stdin="through\n") == "through\n"
    assert "exit code 7" in kubectl("exec", "web", "--", "sh", "-c", "exit 7", ok=False)
    kubectl("exec", "web", "--", "curl", "-s", "-m", "5", "http://127.0.0.1/logged")
    assert "/logged" in kubectl("logs", "web", "--tail=1")
    forward = subprocess.Popen(
        ["kubectl", "--kubeconfig", kubeconfig, "port-forward", "pod/web", ":80"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert forward.stdout
        port = forward.stdout.readline().split("127.0.0.1:")[1].split()[0]
        got = subprocess.run(
            ["curl", "-s", "-m", "5", f"http://127.0.0.1:{port}/f"], capture_output=True, check=True
        )
        assert json.loads(got.stdout)["pod"] == "web"
    finally:
        forward.kill()
        forward.wait()
        assert forward.stdout
        forward.stdout.close()
    kubectl("delete", "pod", "web")


def test_a_deleted_pod_gets_its_grace_and_leaves_nothing(kubectl: Kubectl) -> None:
    stubborn = "trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done"
    make(kubectl, "stubborn", {"command": ["bash", "-c", stubborn]}, terminationGracePeriodSeconds=1)
    wait(lambda: "up" in kubectl("logs", "stubborn", ok=False).splitlines(), "the container to be up")
    pins = [one.name for one in Path("/run/netns").iterdir() if one.name.endswith(".default.stubborn")]
    assert len(pins) == 1
    kubectl("delete", "pod", "stubborn")
    assert not (Path("/run/netns") / pins[0]).exists()
    make(kubectl, "stubborn", {"command": ["sleep", "9"]})  # the name is free again at once
    phase_is(kubectl, "stubborn", "Running")
    kubectl("delete", "pod", "stubborn", "--grace-period=0", "--force")


def test_deployments_scale_and_heal(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "many", "--image=web", "--replicas=3")
    kubectl("rollout", "status", "deployment/many", "--timeout=60s")
    kubectl("scale", "deployment/many", "--replicas=1")
    wait(lambda: len(kubectl("get", "pods", "-l", "app=many", "-o", "name").split()) == 1, "one pod")
    kubectl("delete", "pods", "-l", "app=many", "--wait=false")
    kubectl("wait", "--for=condition=Available", "deployment/many", "--timeout=30s")
    kubectl("delete", "deployment", "many")
    wait(lambda: not kubectl("get", "pods", "-l", "app=many", "-o", "name").split(), "no pods")


def test_a_container_with_a_standard_input_can_be_typed_into(kubectl: Kubectl, kubeconfig: str) -> None:
    run = ("run", "typed", "--image=busybox", "--restart=Never", "--rm", "-i", "--quiet", "--")
    assert kubectl(*run, "cat", stdin="typed in\n").splitlines()[0] == "typed in"
    shell = [
        "kubectl",
        "--kubeconfig",
        kubeconfig,
        "run",
        "shell",
        "--image=busybox",
        "--restart=Never",
        "--rm",
        "-it",
    ]
    ours, theirs = pty.openpty()
    child = subprocess.Popen([*shell, "--quiet", "--", "sh"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while b"# " not in seen:  # the prompt
            seen += os.read(ours, 4096)
        os.write(ours, b"echo in $HOSTNAME on $(tty); exit\n")
        while b"in shell on /dev/pts/" not in seen:
            seen += os.read(ours, 4096)
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
