"""Tries connections from where it runs: ``python -I -S reach.py SECONDS TARGET…``. Runs alone, in a pod.

A target is ``tcp/<host>/<port>`` or ``udp/<host>/<port>``; the host may be a name, which is asked of
the pod's DNS. All are tried at the same time. For each a line: the target, a space, and ``ok``,
``refused``, ``timeout``, ``unknown name`` or the system's word for what went wrong. UDP is ok when
an answer comes; it is sent again while none does.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGAIN = 0.25  # s between datagrams
PAYLOAD = b"podwire: are you there?\n"


class Try:
    """One target."""

    def __init__(self, target: str) -> None:
        self.target = target
        protocol, host, port = target.split("/")
        self.udp = protocol == "udp"
        self.result = ""
        self.sock: socket.socket | None = None
        self.sent = 0.0
        kind = socket.SOCK_DGRAM if self.udp else socket.SOCK_STREAM
        try:
            found = socket.getaddrinfo(host, int(port), type=kind)
        except socket.gaierror:
            self.result = "unknown name"
            return
        family, kind, number, _, address = found[0]
        self.address: Any = address
        self.sock = socket.socket(family, kind, number)
        self.sock.setblocking(False)
        try:
            self.sock.connect(address)
        except BlockingIOError:
            return
        except OSError as error:
            self.settle(error.errno or 0)

    def settle(self, number: int) -> None:
        refused = {111: "refused", 110: "timeout"}
        self.result = refused.get(number, os.strerror(number)) if number else "ok"

    def send(self, now: float) -> None:
        """A datagram, if it is time for one (again)."""
        if not self.udp or self.result or self.sock is None or now - self.sent < AGAIN:
            return
        self.sent = now
        try:
            self.sock.send(PAYLOAD)
        except BlockingIOError:
            return
        except OSError as error:
            self.settle(error.errno or 0)

    def ready(self) -> None:
        assert self.sock
        if not self.udp:
            self.settle(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            return
        try:
            self.sock.recv(65535)
        except BlockingIOError:
            return
        except OSError as error:
            self.settle(error.errno or 0)
            return
        self.settle(0)


def main(seconds: float, targets: list[str]) -> None:
    tries = [Try(target) for target in targets]
    selector = selectors.DefaultSelector()
    for one in tries:
        if one.sock is not None and not one.result:
            selector.register(one.sock, selectors.EVENT_READ if one.udp else selectors.EVENT_WRITE, one)
    deadline = time.monotonic() + seconds
    while (now := time.monotonic()) < deadline and any(not one.result for one in tries):
        for one in tries:
            one.send(now)
        for key, _ in selector.select(min(AGAIN, deadline - now)):
            key.data.ready()
            if key.data.result:
                selector.unregister(key.fileobj)
    for one in tries:
        print(one.target, one.result or "timeout", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
