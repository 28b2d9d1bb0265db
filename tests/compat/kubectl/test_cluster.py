"""kubectl, unmodified: what it asks of a whole cluster, and reaching into pods."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from podwire.apiserver.kubeconfig import kubeconfig
from podwire.apiserver.tls import Authority

pytestmark = pytest.mark.compat

SHORT_NAMES = {
    "ciliumnetworkpolicies": "cnp,ciliumnp",
    "ciliumclusterwidenetworkpolicies": "ccnp",
    "ciliumendpoints": "cep,ciliumep",
    "ciliumidentities": "ciliumid",
    "ciliumnodes": "cn,ciliumn",
    "deployments": "deploy",
    "networkpolicies": "netpol",
}


def run_pod(kubectl: Any, name: str, *command: str) -> None:
    kubectl("run", name, "--image=local", "--restart=Never", "--command", "--", *command)
    kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=20s")


def test_api_resources_and_explain(kubectl: Any) -> None:
    listed = {line.split()[0]: line.split() for line in kubectl("api-resources").splitlines()[1:]}
    for plural, names in SHORT_NAMES.items():
        assert listed[plural][1] == names
    assert kubectl("api-resources", "--categories=cilium", "-o", "name").count("cilium.io") == 5
    assert kubectl("api-resources", "--categories=all", "-o", "name").count("\n") == 5
    assert "cilium.io/v2" in kubectl("api-versions")
    text = kubectl("explain", "cnp.spec.ingress")
    assert "fromEndpoints" in text and "toPorts" in text
    assert "containerPort\t<integer> -required-" in kubectl("explain", "pod.spec.containers.ports")
    assert "FIELDS:" in kubectl("explain", "pod", "--recursive")
    assert kubectl.run("explain", "pod.spec.nothing").code == 1


def test_who_am_i_and_may_i(kubectl: Any) -> None:
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    version = kubectl("version")
    assert "Server Version: v1.32" in version
    assert "is running at" in kubectl("cluster-info")


def test_rollout_forward_and_back(kubectl: Any) -> None:
    kubectl("create", "deployment", "web", "--image=web:1", "--replicas=3")
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    kubectl("set", "image", "deploy/web", "web=web:2")
    assert "successfully rolled out" in kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    assert len(kubectl("rollout", "history", "deploy/web").strip().splitlines()) == 4
    kubectl("rollout", "undo", "deploy/web")
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    assert kubectl("get", "deploy", "web", "-o", image) == "web:1"
    kubectl("rollout", "restart", "deploy/web")
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    kubectl("rollout", "pause", "deploy/web")
    kubectl("set", "image", "deploy/web", "web=web:3")
    kubectl("scale", "deploy/web", "--replicas=2")
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=20s")
    kubectl("rollout", "resume", "deploy/web")
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.replicas}=2", "--timeout=20s")
    assert set(kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}").split()) == {
        "web:3"
    }


def test_daemonset_on_every_node(kubectl: Any) -> None:
    kubectl(
        "apply",
        "-f",
        "-",
        stdin="""
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "agent:1"}]}
""",
    )
    kubectl("rollout", "status", "ds/agent", "--timeout=20s")
    nodes = kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}")
    assert sorted(nodes.split()) == ["n1", "n2"]
    kubectl("set", "image", "ds/agent", "agent=agent:2")
    kubectl("rollout", "status", "ds/agent", "--timeout=20s")
    assert "2" in kubectl("rollout", "history", "ds/agent")
    kubectl("rollout", "undo", "ds/agent")
    kubectl("rollout", "status", "ds/agent", "--timeout=20s")
    kubectl(
        "wait",
        "pods",
        "-l",
        "app=agent",
        "--for=jsonpath={.spec.containers[0].image}=agent:1",
        "--timeout=20s",
    )


def test_run_expose_and_endpoints(kubectl: Any) -> None:
    kubectl("run", "web", "--image=web", "--port=80", "--labels=app=web")
    kubectl("expose", "pod", "web", "--port=8080", "--target-port=80")
    kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=20s")
    address = kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}")
    kubectl(
        "wait", "endpoints/web", f"--for=jsonpath={{.subsets[0].addresses[0].ip}}={address}", "--timeout=10s"
    )
    slices = kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=web").splitlines()
    assert slices[1].split()[1:4] == ["IPv4", "80", address]


def test_cordon_and_drain(kubectl: Any) -> None:
    kubectl("create", "deployment", "web", "--image=web:1", "--replicas=2")
    kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    try:
        kubectl("drain", "n2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=30s")
        kubectl("rollout", "status", "deploy/web", "--timeout=20s")
        assert "SchedulingDisabled" in kubectl("get", "node", "n2")
        assert set(kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}").split()) == {"n1"}
    finally:
        kubectl("uncordon", "n2")


def test_a_pod_that_fits_nowhere_says_why(kubectl: Any) -> None:
    overrides = '{"spec":{"nodeSelector":{"disk":"ssd"}}}'
    kubectl("run", "picky", "--image=x", f"--overrides={overrides}")
    kubectl("wait", "pod/picky", "--for=condition=PodScheduled=False", "--timeout=10s")
    assert "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector." in kubectl(
        "describe", "pod", "picky"
    )


def test_exec(kubectl: Any) -> None:
    run_pod(kubectl, "shell", "sleep", "1000")
    assert kubectl("exec", "shell", "--", "echo", "hello") == "hello\n"
    assert kubectl("exec", "-i", "shell", "--", "cat", stdin="through and back") == "through and back"
    failed = kubectl.run("exec", "shell", "--", "sh", "-c", "echo wrong >&2; exit 7")
    assert failed.code == 7 and "wrong" in failed.err
    large = kubectl("exec", "shell", "--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
    assert len(large) == 3_000_000
    missing = kubectl.run("exec", "shell", "--", "/no/such/program")
    assert missing.code != 0 and "no program" in missing.err
    assert kubectl.run("exec", "absent", "--", "true").code == 1
    absent = kubectl.run("exec", "shell", "-c", "absent", "--", "true")
    assert absent.code == 1 and "container absent is not valid for pod shell" in absent.err


def test_what_is_not_served_is_said(kubectl: Any) -> None:
    run_pod(kubectl, "shell", "sleep", "1000")
    debug = kubectl.run("debug", "shell", "--image=any", "--", "true")
    assert debug.code == 1 and "ephemeral containers are disabled for this cluster" in debug.err


def test_exec_with_a_terminal(kubectl: Any) -> None:
    run_pod(kubectl, "shell", "sleep", "1000")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        kubectl.command("exec", "-it", "shell", "--", "sh", "-c", "tty && read line && echo got:$line"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        seen = read_until(master, b"/dev/pts/")
        os.write(master, b"typed\n")
        seen += read_until(master, b"got:typed")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_logs(kubectl: Any) -> None:
    run_pod(kubectl, "talker", "sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 1; echo end")
    following = kubectl.popen("logs", "-f", "talker")
    out, _ = following.communicate(timeout=20)
    assert out == "line 1\nline 2\nline 3\nend\n"
    assert kubectl("logs", "talker", "--tail=1") == "end\n"
    assert kubectl.run("logs", "talker", "-c", "nothing").code == 1
    assert kubectl("attach", "talker").endswith("end\n")


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"you asked for {self.path}\n".encode() * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def test_port_forward(kubectl: Any) -> None:
    run_pod(kubectl, "web", "sleep", "1000")
    server = HTTPServer(("127.0.0.1", 0), _Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    forwarding = kubectl.popen("port-forward", "pod/web", f":{server.server_port}")
    try:
        assert forwarding.stdout is not None
        line = forwarding.stdout.readline()
        port = int(line.split("127.0.0.1:")[1].split()[0])
        for path in ("/one", "/two", "/three"):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.count(f"you asked for {path}\n".encode()) == 1000
    finally:
        forwarding.kill()
        forwarding.communicate()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_stranger_is_not_let_in(kubectl: Any, tmp_path: Path) -> None:
    known = yaml.safe_load(kubectl.kubeconfig.read_text())
    url = known["clusters"][0]["cluster"]["server"]
    other = tmp_path / "other"
    other.mkdir()
    wrong = Authority(other).client("kubernetes-admin", ("system:masters",))
    file = tmp_path / "stranger"
    file.write_bytes(kubeconfig("test", url, "stranger", kubectl.server.authority.pem, wrong))
    # Not `get pods`, which asks for half a minute what the API has before it gives up.
    arguments = ("get", "--raw", "/api/v1/secrets")
    answer = kubectl.run(*arguments, KUBECONFIG=str(file), **{})
    assert answer.code == 0  # the right one is on the command line
    refused = subprocess.run(
        ["kubectl", f"--kubeconfig={file}", f"--cache-dir={tmp_path}", *arguments],
        capture_output=True,
        text=True,
    )
    # The handshake ends, and whether kubectl reads why before it reads that it has ended is chance.
    assert refused.returncode == 1
    assert any(word in refused.stderr for word in ("tls: ", "EOF", "connection reset", "broken pipe"))
    assert refused.stdout == ""


def read_until(master: int, wanted: bytes) -> bytes:
    seen, ends = b"", time.monotonic() + 20
    while wanted not in seen:
        assert time.monotonic() < ends, f"waited for {wanted!r}, saw {seen!r}"
        seen += os.read(master, 4096)
    return seen
