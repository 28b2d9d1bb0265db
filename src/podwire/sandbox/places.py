"""Where one sandbox keeps what it makes: directories, namespaces, cgroups, pins; all named after it.

Everything a sandbox makes is below one of these, so two sandboxes never meet, and a record of
them is a record of everything.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from podwire.base.errors import UsageError
from podwire.sandbox import mounts

RUN = Path("/run/podwire/sandboxes")
NETNS = Path("/run/netns")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
FILE_NAME_MAX = 255
NAME_MAX = 20  # a node's socket must stay below the 108 bytes of a unix address


def check_name(name: str, what: str = "sandbox name") -> str:
    """`name`, if it can name a sandbox, a node or a world; UsageError if not."""
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise UsageError(
            f"“{name[:60]}” cannot be a {what}",
            hint=f"use 1 to {NAME_MAX} lower-case letters, digits and inner hyphens, for example “two-nodes”",
        )
    return name


class Places(msgspec.Struct, frozen=True):
    """All places of the sandbox `name`; `cgroup_root` is where cgroup2 is mounted, or will be."""

    name: str
    cgroup_root: Path

    @property
    def directory(self) -> Path:
        return RUN / self.name

    @property
    def record(self) -> Path:
        return self.directory / "record"  # as in record.RECORD

    @property
    def state(self) -> Path:
        """What `list`, `env` and `exec` need to know: written once, when the sandbox is planned."""
        return self.directory / "sandbox.json"

    @property
    def lock(self) -> Path:
        """Held by the command that brings the sandbox up or down."""
        return RUN.parent / f"{self.name}.lock"

    @property
    def complete(self) -> Path:
        """There once `up` has succeeded; without it the sandbox is what an interrupted `up` left."""
        return self.directory / "complete"

    @property
    def api(self) -> Path:
        return self.directory / "api"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def hubble(self) -> Path:
        """The socket of the relay: the flows of all nodes."""
        return self.directory / "hubble.sock"

    @property
    def keeper_socket(self) -> Path:
        return self.directory / "keeper.sock"

    def claim(self, process: str) -> Path:
        """Locked by the process of that name while it lives."""
        return self.directory / "processes" / process.replace(" ", "-")

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def pods(self) -> Path:
        return self.directory / "pods"

    def node(self, node: str) -> Path:
        """The agent's run directory."""
        return self.directory / "nodes" / node

    def netns(self, member: str) -> Path:
        """The namespace of a node or a world; ``net`` is the underlay's."""
        return NETNS / f"pw-{self.name}-{member}"

    def pod_netns(self, namespace: str, pod: str) -> Path:
        """Neither part before the pod's name can hold a dot, so no two pods share a name.

        One that is too long for a file ends in a digest of the whole, behind a character no name holds.
        """
        whole = f"pw-{self.name}.{namespace}.{pod}"
        if len(whole) > FILE_NAME_MAX:
            digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
            whole = f"{whole[: FILE_NAME_MAX - 33]}~{digest}"
        return NETNS / whole

    @property
    def cgroup(self) -> Path:
        return self.cgroup_root / "podwire" / self.name

    @property
    def system_cgroup(self) -> Path:
        return self.cgroup / "system"

    def node_cgroup(self, node: str) -> Path:
        return self.cgroup / node

    def agent_cgroup(self, node: str) -> Path:
        return self.cgroup / node / "agent"

    @property
    def bpf(self) -> Path:
        return mounts.BPF / self.name

    def node_bpf(self, node: str) -> Path:
        return self.bpf / node


def names() -> list[str]:
    """Sandboxes that have a directory, whole or not."""
    if not RUN.is_dir():
        return []
    return sorted(entry.name for entry in RUN.iterdir() if entry.is_dir())
