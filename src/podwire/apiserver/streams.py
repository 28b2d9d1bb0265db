"""What the API needs of whoever runs pods: exec, attach, logs, port-forward.

The sandbox implements `PodRuntime`; the server ends the WebSocket and speaks kubectl's protocol.
Errors a client should see are raised as PodwireError (NotFound: no such pod or container).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

STDOUT = 1
STDERR = 2


class ExecStream(Protocol):
    """One process with its standard streams."""

    async def write_stdin(self, data: bytes) -> None:
        """Write to the process; raises BrokenPipeError once it no longer reads."""

    async def close_stdin(self) -> None:
        """End of its standard input."""

    async def resize(self, columns: int, rows: int) -> None:
        """The size of its terminal; nothing where it has none."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(STDOUT | STDERR, data) until both are closed; with a terminal all of it is STDOUT."""

    async def wait(self) -> int:
        """Its exit code; 128 + n where signal n ended it."""

    async def close(self) -> None:
        """The client went away: end the process (exec), or let it go on (attach)."""


class PortStream(Protocol):
    """One TCP connection to a port inside the pod."""

    async def read(self) -> bytes:
        """What came; empty at the end."""

    async def write(self, data: bytes) -> None: ...

    async def close_write(self) -> None: ...

    async def close(self) -> None: ...


class PodRuntime(Protocol):
    """Whoever runs the pods."""

    async def exec(
        self, namespace: str, pod: str, container: str | None, command: list[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        """Start `command` in a container of a pod (None: its only or first one)."""

    async def attach(
        self, namespace: str, pod: str, container: str | None, *, stdin: bool, tty: bool
    ) -> ExecStream:
        """The running main process of a container."""

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str | None,
        *,
        follow: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        since_time: str | None,
        timestamps: bool,
        previous: bool,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """What a container wrote, in pieces. Raises before the first piece where there is no such thing."""

    async def port_forward(self, namespace: str, pod: str, port: int) -> PortStream:
        """Connect to `port` inside the pod."""
