"""Who may ask what, and what is told: sockets, ports, secrets, labels, terminals. One sandbox for all."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.faults.conftest import Object, apply, get, pod, podwire, policy, running, wait

from podwire.sandbox import view
from podwire.testing.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
DNS = 53  # what pods ask in plain, as everywhere
CANARY = "canary-7f3a9d51c2"  # in no other place on the machine

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "canary", "namespace": "default"},
    "stringData": {"password": CANARY},
}
OTHER = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server, a client, and a pod whose labels and name are made to be taken for the client."""
    crafted: Object = pod("crafted", labels={"app": "client"})
    crafted["metadata"]["namespace"] = "other"
    crafted["metadata"]["labels"] |= {
        "io.kubernetes.pod.namespace": "default",
        "io.cilium.k8s.policy.serviceaccount": "default",
        "io.cilium.k8s.policy.cluster": "other",
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": "default",
    }
    env = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "canary", "key": "password"}}}]
    with running(tmp_path_factory.mktemp("lab"), "nodes: 2\n") as cluster:
        asyncio.run(cluster.apply(OTHER, SECRET, pod("server", image="web"), pod("client", env=env), crafted))
        yield cluster


def processes(lab: Cluster) -> dict[int, str]:
    """Pid → name of every process of podwire's own: keeper, control, agents, relay."""
    places, plan = view.open_sandbox(lab.name)
    cgroups = [places.system_cgroup, *(places.agent_cgroup(node.name) for node in plan.nodes)]
    pids = [int(pid) for one in cgroups for pid in (one / "cgroup.procs").read_text().split()]
    return {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


def test_every_socket_is_for_root_alone(lab: Cluster) -> None:
    found = [path for path in lab.directory.rglob("*") if path.is_socket()]
    assert {"keeper.sock", "hubble.sock", "podwire.sock"} <= {path.name for path in found}
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert path.stat().st_uid == 0
    assert stat.S_IMODE(lab.directory.stat().st_mode) == 0o700
    script = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "  try: socket.socket(socket.AF_UNIX).connect(path); print('connected', path)\n"
        "  except PermissionError: print('refused')\n"
    )
    # The directories keep others out; with these open the sockets themselves have to.
    folders = {
        parent for path in found for parent in path.parents if lab.directory in (parent, *parent.parents)
    }
    modes = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in folders}
    try:
        for folder in folders:
            folder.chmod(0o711)
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, found)],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert done.stdout.split() == ["refused"] * len(found)


def test_what_is_secret_is_kept_in_files_of_root(lab: Cluster) -> None:
    """Keys, the database, kubeconfigs: no file of them is readable by others, nor is their directory."""
    found = [lab.kubeconfig, *lab.directory.glob("nodes/*/kubeconfig")]
    found += [path for path in (lab.directory / "api").rglob("*") if path.suffix != ".crt"]
    assert len(found) > 4
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077, (path, oct(mode))


def listeners(pid: int) -> set[tuple[str, int, str]]:
    """(address, port, inode) that are listened on in the network namespace of a process."""
    found = set()
    for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] != "0A":
                continue
            raw, port = fields[1].split(":")
            words = [bytes.fromhex(raw[at : at + 8])[::-1] for at in range(0, len(raw), 8)]
            found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16), fields[9]))
    return found


def test_what_listens_beyond_loopback_speaks_tls(lab: Cluster) -> None:
    ours = processes(lab)
    mine: dict[str, int] = {}
    for pid in ours:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(fd)
            except OSError:
                continue
            if target.startswith("socket:["):
                mine[target[8:-1]] = pid
    places, plan = view.open_sandbox(lab.name)
    namespaces = [None, *(str(places.netns(name)) for name in ("net", *(one.name for one in plan.nodes)))]
    namespaces += [str(path) for path in Path("/run/netns").glob(f"pw-{lab.name}.*")]
    open_ports = set()
    for namespace in namespaces:
        enter = ["nsenter", f"--net={namespace}"] if namespace else []
        script = "import os,time; print(os.getpid(), flush=True); input()"
        child = subprocess.Popen(
            [*enter, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        open_ports |= {(namespace, address, port) for address, port, inode in listeners(pid) if inode in mine}
        child.communicate("\n")
    assert open_ports, "the API listens somewhere"
    for namespace, address, port in open_ports:
        if port == DNS:
            continue
        enter = ["nsenter", f"--net={namespace}"] if namespace else []
        plain = subprocess.run(
            [*enter, "curl", "-sS", "-m", "3", f"http://{address}:{port}/version"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
        assert "gitVersion" not in plain.stdout, (namespace, address, port)
        tls = subprocess.run(
            [*enter, "curl", "-sSk", "-m", "3", f"https://{address}:{port}/api/v1/secrets"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
        assert '"code":401' in tls.stdout or '"code":403' in tls.stdout, (tls.stdout, tls.stderr)
        assert CANARY not in tls.stdout


def secrets(lab: Cluster) -> dict[str, str]:
    """Everything that must not be told: what it is → its text."""
    kubeconfig = (lab.directory / "kubeconfig").read_text()
    found = {"the secret": CANARY, "the secret, encoded": base64.b64encode(CANARY.encode()).decode()}
    for key in ("client-key-data", "token"):
        for number, text in enumerate(re.findall(rf"{key}: (\S+)", kubeconfig)):
            found[f"kubeconfig {key} {number}"] = text[200:260] or text
    for path in (lab.directory / "pods").rglob("token"):
        if path.is_file():
            found[f"token of {path.parent}"] = path.read_text().strip()
    assert len(found) > 2
    return found


def test_secrets_are_told_to_nobody_who_did_not_ask(lab: Cluster) -> None:
    hidden = secrets(lab)
    asyncio.run(lab["client"].can_reach(lab["server"], port=80))
    told: dict[str, str] = {}
    for path in (lab.directory / "logs").glob("*"):
        told[f"log {path.name}"] = path.read_text(errors="replace")
    for pid, name in processes(lab).items():
        told[f"arguments of {name}"] = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        told[f"environment of {name}"] = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    asked = [
        ["status", "--verbose"],
        ["status", "-o", "json"],
        ["endpoint", "list", "-o", "json"],
        ["metrics", "list"],
    ]
    tables = json.loads(podwire("tables", "--sandbox", lab.name, "-o", "json").stdout)
    asked += [["tables", one["name"], "-o", "json"] for one in tables]
    for words in asked:
        done = podwire(*words, "--sandbox", lab.name)
        told[" ".join(words)] = done.stdout + done.stderr
    told["flows"] = podwire("hubble", "observe", "--last", "100", "-o", "json", "--sandbox", lab.name).stdout
    told["sandbox list"] = podwire("sandbox", "list", "-o", "json").stdout
    told["endpoint object"] = json.dumps(get(lab, "cilium.io/v2", "CiliumEndpoint", "client"))
    told["pod object"] = json.dumps(get(lab, "v1", "Pod", "client"))
    told["debuginfo"] = json.dumps(agent(lab, "/v1/debuginfo")) + json.dumps(agent(lab, "/v1/config"))
    for what, text in told.items():
        for name, secret in hidden.items():
            assert secret not in text, f"{what} tells {name}"


def agent(lab: Cluster, path: str) -> Any:
    from podwire.client.agent import AgentClient

    return AgentClient(lab.directory / "nodes" / "n1" / "podwire.sock").get(path)


def test_labels_do_not_put_a_pod_into_another_namespace(lab: Cluster) -> None:
    clients = policy(
        "clients",
        endpointSelector={"matchLabels": {"app": "server"}},
        ingress=[{"fromEndpoints": [{"matchLabels": {"app": "client"}}]}],
    )
    apply(lab, policy("first", endpointSelector={"matchLabels": {"app": "nobody"}}, ingress=[{}]))
    asyncio.run(lab.apply({**clients}))
    lab_client = get(lab, "cilium.io/v2", "CiliumEndpoint", "crafted", "other")["status"]["identity"]
    assert "k8s:io.kubernetes.pod.namespace=other" in lab_client["labels"]
    assert "k8s:io.kubernetes.pod.namespace=default" not in lab_client["labels"]
    crafted = lab["other/crafted"]
    assert not asyncio.run(crafted.can_reach(lab["server"], port=80))


def test_a_policy_of_one_namespace_selects_nothing_in_another(lab: Cluster) -> None:
    """CVE-2023-41333 in a peer: the namespace label in an endpointSelector."""
    foreign = policy(
        "foreign",
        endpointSelector={"matchLabels": {"k8s:io.kubernetes.pod.namespace": "default", "app": "server"}},
        ingress=[{"fromEntities": ["all"]}],
    )
    foreign["metadata"]["namespace"] = "other"
    kubectl = subprocess.run(
        ["kubectl", "--kubeconfig", str(lab.kubeconfig), "apply", "-f", "-"],
        input=json.dumps(foreign), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if kubectl.returncode == 0:  # then the agents say no

        def condition() -> Object:
            found = get(lab, "cilium.io/v2", "CiliumNetworkPolicy", "foreign", "other")
            return next(iter(found.get("status", {}).get("conditions", [])), {})

        told = wait(condition, "the condition of the policy")
        assert told["status"] == "False" and "endpointSelector" in told["message"]
    else:
        assert "endpointSelector" in kubectl.stderr
    assert not asyncio.run(lab["other/crafted"].can_reach(lab["server"], port=80))


ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"


def test_nothing_printed_steers_a_terminal(lab: Cluster) -> None:
    """Names the API takes are tame; a label, an annotation and a log line need not be."""
    bad = pod("bad", labels={"x": ESCAPES})
    kubectl = subprocess.run(
        ["kubectl", "--kubeconfig", str(lab.kubeconfig), "apply", "-f", "-"],
        input=json.dumps(bad), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert kubectl.returncode != 0 and "metadata.labels" in kubectl.stderr
    wrong = policy(
        "wrong",
        endpointSelector={},
        description=ESCAPES,
        ingress=[{"toPorts": [{"ports": [{"port": ESCAPES}]}]}],
    )
    path = lab.directory / "wrong.json"
    path.write_text(json.dumps(wrong))
    refused = subprocess.run(
        ["kubectl", "--kubeconfig", str(lab.kubeconfig), "apply", "-f", str(path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    path.unlink()
    commands = [
        ["status", "--verbose"], ["policy", "get"], ["endpoint", "list"], ["identity", "list"],
        ["tables", "policies"], ["tables", "pods"], ["hubble", "observe", "--last", "20"],
        ["bpf", "policy", "list"],
    ]  # fmt: skip
    shown = [podwire(*words, "--sandbox", lab.name) for words in commands]
    shown.append(podwire("status", "--sandbox", ESCAPES))
    shown.append(podwire("sandbox", "down", "--name", ESCAPES))
    shown.append(podwire("sandbox", "exec", "--name", lab.name, ESCAPES, "--", "true"))
    shown.append(podwire("endpoint", "get", f"pod-name:default:{ESCAPES}", "--sandbox", lab.name))
    for done in (*shown, refused):
        for text in (done.stdout, done.stderr):
            steering = [one for one in text if one not in "\n\t" and not one.isprintable()]
            assert not steering, (done.args, steering, ascii(text))
