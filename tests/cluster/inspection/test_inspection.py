"""Looking at a running cluster: what each command shows is what is so, also after changes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.patience import within

from podwire.base.aio import eventually
from podwire.base.errors import ApiError
from podwire.bpf import probe
from podwire.kube import resources
from podwire.testing.cluster import Cluster

pytestmark = pytest.mark.cluster
Sandbox = Callable[..., Cluster]

LISTS = [
    "endpoint list",
    "identity list",
    "service list",
    "bpf lb list",
    "bpf ct list",
    "bpf policy list",
    "bpf ipcache list",
    "policy get",
    "policy selectors",
    "metrics list",
    "tables",
]

NODE_PORT = """
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: prod}
spec:
  type: NodePort
  selector: {app: backend}
  ports: [{port: 81, targetPort: 8080}]
"""

# What podwire does not enforce yet, it refuses with the path.
NOT_YET: dict[str, Any] = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "not-yet", "namespace": "prod"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "database"}},
        "egress": [{"toFQDNs": [{"matchName": "example.org"}]}],
    },
}


async def podwire(lab: Cluster, command: str, node: str = "n1") -> tuple[int, str]:
    """Run `podwire COMMAND` against a node: (exit code, what it printed)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "podwire.cli", *command.split(), "--sandbox", lab.name, "--node", node),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert b"Traceback" not in output, output.decode()
    return process.returncode or 0, output.decode()


async def asked(lab: Cluster, command: str, node: str = "n1") -> Any:
    """The JSON that `podwire COMMAND -o json` prints."""
    code, output = await podwire(lab, f"{command} -o json", node)
    assert code == 0, output
    return json.loads(output)


async def test_the_commands_tell_what_is_so(sandbox: Sandbox) -> None:
    async with sandbox("first-light") as lab:
        await filters_become_links(lab)
        await every_list_has_rows(lab)
        await a_drop_is_explained(lab)
        await services_follow_their_backends(lab)
        await policies_are_told_whether_they_hold(lab)


async def filters_become_links(lab: Cluster) -> None:
    """Of pods that were attached a moment ago; meanwhile, who may talk may and who may not may not."""
    wanted = "(tcx, " if probe.supported("tcx") else "(tc, "
    backend = lab["prod/backend-1"]

    async def bound() -> bool:
        assert not await lab["prod/unauthorized"].can_reach(backend, port=8080)
        assert await lab["prod/frontend"].can_reach(backend, port=8080)
        components = (await asked(lab, "status"))["podwire"]["components"]
        return wanted in components["datapath"]["msg"]

    await eventually(bound, timeout=within(30), what=f"programs attached {wanted}")


async def every_list_has_rows(lab: Cluster) -> None:
    assert await lab["prod/frontend"].can_reach("backend.prod", port=8080)
    for command in LISTS:
        code, output = await podwire(lab, command)
        assert code == 0 and len(output.splitlines()) > 1, f"{command}: {output}"
        assert await asked(lab, command), command
    _, output = await podwire(lab, "endpoint list")
    backend = next(line for line in output.splitlines() if "k8s:app=backend" in line)
    assert backend.split()[1:3] == ["Enabled", "Enabled"] and backend.split()[-1] == "ready"
    _, output = await podwire(lab, "bpf policy list")
    assert "CiliumNetworkPolicy prod/backend ingress[0]" in output
    assert "CiliumNetworkPolicy prod/backend: default deny, ingress" in output


async def a_drop_is_explained(lab: Cluster) -> None:
    watching = asyncio.create_task(  # noqa: TID251 - ends with the first drop, and is awaited
        podwire(lab, "monitor --drops -n 1 -o json")
    )
    backend = lab["prod/backend-1"]
    while not watching.done():
        assert not await lab["prod/unauthorized"].can_reach(backend, port=8080)
    _, output = await watching
    flow = json.loads(output)
    _, output = await podwire(lab, f"explain {flow['uuid']}")
    assert "prod/unauthorized" in output and "CiliumNetworkPolicy prod/backend" in output
    assert "efault deny" in output
    code, output = await podwire(lab, f"explain {flow['uuid']}", node="n2")
    assert code == 0 and "prod/unauthorized" in output, "asked of another node, too"
    code, output = await podwire(lab, "explain no-such-flow")
    assert code == 2 and "Error: " in output


async def services_follow_their_backends(lab: Cluster) -> None:
    await lab.apply(NODE_PORT)

    async def backends() -> list[str]:
        rows = await asked(lab, "bpf lb list")
        return [row["backend"] for row in rows if row["service"] == "prod/outside"]

    async def both() -> bool:
        return len(await backends()) == 2

    await eventually(both, timeout=10, what="both backends in the kernel")
    _, output = await podwire(lab, "service list")
    assert "NodePort 3" in output
    code, output = await podwire(lab, "status")
    assert code == 0 and "Not served yet:" in output and "prod/outside: NodePort" in output
    gone = f"{lab['prod/backend-2'].address}:8080"
    async with lab.client() as client:
        await client.delete(resources.PODS, "backend-2", "prod")

    async def follows() -> bool:
        found = await backends()
        return len(found) == 1 and gone not in found

    await eventually(follows, timeout=20, what="the backend's end in the kernel")


async def policies_are_told_whether_they_hold(lab: Cluster) -> None:
    async with lab.client() as client:
        with pytest.raises(ApiError, match=r"spec\.egress\[0\]\.toFQDNs"):
            await client.create(resources.CILIUM_NETWORK_POLICIES, NOT_YET)
        found = await client.get(resources.CILIUM_NETWORK_POLICIES, "backend", "prod")
    (valid,) = found["status"]["conditions"]
    assert (valid["type"], valid["status"]) == ("Valid", "True")
    _, output = await podwire(lab, "policy get prod/backend")
    assert "in force" in output and "spec.ingress[1]" in output
