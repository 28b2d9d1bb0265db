"""A kernel without a feature: the feature degrades, the node goes on, and `podwire status` names it.

The feature is made absent by a seccomp filter on the agent: the kernel answers BPF_LINK_CREATE as
one does that never heard of it, and everything that follows is real.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cluster.faults.conftest import pod, podwire, process, running, status, wait

from podwire.sandbox import checks, view
from podwire.testing.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
WITHOUT_LINKS = Path(__file__).with_name("without_links.py")


@contextmanager
def agent_without_links(lab: Cluster) -> Iterator[None]:
    """In the place of n1's agent, with its keeper stopped meanwhile: the same agent under the filter."""
    places, _ = view.open_sandbox(lab.name)
    old = process(lab, "agent n1")
    keeper = int(Path(f"/proc/{old}/stat").read_text().rpartition(")")[2].split()[1])
    config = places.node("n1") / "agent.json"
    words = [str(checks.init_program()), "exec", "--netns", str(places.netns("n1"))]
    words += ["--cgroup", str(places.agent_cgroup("n1")), "--"]
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(old, signal.SIGTERM)
        # A zombie until its keeper goes on: its lock is free all the same.
        wait(lambda: Path(f"/proc/{old}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "its end")
        child = subprocess.Popen([*words, sys.executable, str(WITHOUT_LINKS), str(config)])
        try:
            yield
        finally:
            child.terminate()
            child.wait()
    finally:
        os.kill(keeper, signal.SIGCONT)


def test_without_links_the_node_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, "nodes: 1\n") as lab:
        asyncio.run(lab.apply(pod("server", image="web"), pod("client")))
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80}]},
        }
        with agent_without_links(lab):
            wait(lambda: status(lab).get("podwire", {}).get("components"), "the agent")
            asyncio.run(lab.apply(service, pod("later")))
            told = status(lab)["podwire"]["components"]["kernel"]
            assert told["state"] == "Warning"
            assert "without tcx (Linux 6.6): programs are filters (clsact)" in told["msg"]
            assert "cgroup link (Linux 5.7): services are translated packet by packet" in told["msg"]
            shown = podwire("status", "--sandbox", lab.name)
            assert shown.returncode == 1 and "tcx (Linux 6.6)" in shown.stdout
            assert "Services at the socket:  Disabled" in shown.stdout
            wait(lambda: status(lab)["podwire"]["components"]["datapath"]["state"] == "Ok", "the maps")
            for client in ("client", "later"):
                assert asyncio.run(lab[client].can_reach(lab["server"], port=80)), client
                assert asyncio.run(lab[client].can_reach("web", port=80)), client
            assert asyncio.run(lab["server"].can_reach(lab["later"], port=80)) is False  # nothing listens
        wait(lambda: status(lab).get("cilium", {}).get("state") == "Ok", "the agent with links")
        assert json.dumps(status(lab)["podwire"]["components"]["kernel"]).count("Ok")
        assert asyncio.run(lab["client"].can_reach("web", port=80))
