"""Which node is this? Its Node object says; a copy is kept for starts while the API is away."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec

from podwire.base.aio import Backoff
from podwire.base.errors import ApiError, ConfigError, PodwireError, Unreachable
from podwire.base.files import replace_whole
from podwire.kube import Client
from podwire.kube.resources import NODES
from podwire.sources import nodes
from podwire.sources.objects import of
from podwire.state.tables import NodeRow

log = logging.getLogger(__name__)

PATIENCE = 3.0  # s to wait for the API before the copy is used


class Whoami:
    """This node's row, from the API or from the copy of an earlier life."""

    def __init__(self, node_name: str, directory: Path) -> None:
        self.node_name = node_name
        self._copy = directory / "node.json"

    async def find(self, client: Client) -> NodeRow:
        """Waits for the API as long as it takes if there is no copy."""
        remembered = self._remembered()
        backoff, failures = Backoff(0.05, 5.0), 0
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    found = of(nodes.Node, await client.get(NODES, self.node_name))
                row = nodes.row_of(found, self.node_name)
                if row.addresses and row.pod_cidrs:
                    self.remember(row)
                    return row
                problem: PodwireError = ConfigError(f"node {self.node_name} has no address or pod CIDR yet")
            except (ApiError, Unreachable) as error:
                problem = error
            except TimeoutError:
                problem = Unreachable("the Kubernetes API does not answer")
            if remembered is not None and asyncio.get_running_loop().time() >= deadline:
                log.warning("%s; going on as node %s was", problem, self.node_name)
                return remembered
            failures += 1
            if failures in (1, 10, 100):
                log.warning("waiting for node %s: %s", self.node_name, problem)
            await asyncio.sleep(backoff.after(failures))

    def remember(self, row: NodeRow) -> None:
        """Keep a copy. Without one the node still works; only a start without the API would wait."""
        try:
            self._copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_whole(self._copy, msgspec.json.encode(row))
        except OSError as error:
            log.warning("cannot keep a copy of node %s: %s", row.name, error.strerror)

    def _remembered(self) -> NodeRow | None:
        try:
            found: Any = msgspec.json.decode(self._copy.read_bytes(), type=NodeRow)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if isinstance(found, NodeRow) and found.name == self.node_name else None
