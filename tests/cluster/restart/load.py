"""Load for the restart tests, run inside pods: `load.py serve PORT` and `load.py connect ADDRESS PORT …`.

`connect` opens a fixed number of connections a second until its standard input ends, each one
connect → one byte there and back → close, and prints what became of them as one JSON line. Standard
library only: it runs in a pod with `python3 -I`.
"""

import errno
import json
import select
import socket
import sys
import time

PATIENCE = 1.0  # s for one connection; a lost SYN is sent again only after 1 s, so a loss shows


def serve(port: int) -> None:
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    listener.setblocking(False)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    open_now: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                accept_all(listener, poller, open_now)
                continue
            peer = open_now[fd]
            try:
                data = peer.recv(1)
                if data:
                    peer.send(data)
                    continue
            except OSError:
                pass
            poller.unregister(fd)
            open_now.pop(fd).close()


def accept_all(listener: socket.socket, poller: select.epoll, open_now: dict[int, socket.socket]) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except BlockingIOError:
            return
        peer.setblocking(False)
        open_now[peer.fileno()] = peer
        poller.register(peer, select.EPOLLIN)


class Load:
    """Connections to one address, `rate` a second."""

    def __init__(self, address: str, port: int, rate: float) -> None:
        self.target = (address, port)
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.rate = rate
        self.poller = select.epoll()
        self.poller.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        self.open_now: dict[int, tuple[socket.socket, float]] = {}
        self.sent: set[int] = set()
        self.result = {"opened": 0, "answered": 0, "timed_out": 0, "refused": 0}
        self.errors: dict[str, int] = {}
        self.slowest = 0.0

    def run(self) -> None:
        begun, ending = time.monotonic(), False
        while not ending or self.open_now:
            now = time.monotonic()
            while not ending and self.result["opened"] < (now - begun) * self.rate:
                self.open()
            for fd, event in self.poller.poll(0.001):
                if fd == sys.stdin.fileno():
                    self.poller.unregister(fd)
                    ending = True
                else:
                    self.advance(fd, event)
            self.expire(time.monotonic())
        self.result["seconds"] = round(time.monotonic() - begun, 1)
        self.result["slowest_ms"] = round(self.slowest * 1000, 1)
        print(json.dumps({**self.result, "errors": self.errors}), flush=True)

    def open(self) -> None:
        self.result["opened"] += 1
        one = socket.socket(self.family, socket.SOCK_STREAM)
        one.setblocking(False)
        failure = one.connect_ex(self.target)
        if failure not in (0, errno.EINPROGRESS):
            self.errors[f"connect {errno.errorcode[failure]}"] = (
                self.errors.get(f"connect {errno.errorcode[failure]}", 0) + 1
            )
        self.open_now[one.fileno()] = (one, time.monotonic())
        self.poller.register(one, select.EPOLLOUT)

    def advance(self, fd: int, event: int) -> None:
        one, since = self.open_now[fd]
        try:
            if fd not in self.sent:
                error = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, "connect")
                one.send(b"x")
                self.sent.add(fd)
                self.poller.modify(fd, select.EPOLLIN)
            elif one.recv(1) == b"x":
                self.slowest = max(self.slowest, time.monotonic() - since)
                self.end(fd, "answered")
            else:
                self.end(fd, "refused")
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            self.errors[name] = self.errors.get(name, 0) + 1
            self.end(fd, "refused")

    def expire(self, now: float) -> None:
        for fd in [fd for fd, (_, since) in self.open_now.items() if now - since > PATIENCE]:
            self.end(fd, "timed_out")

    def end(self, fd: int, outcome: str) -> None:
        self.result[outcome] += 1
        one, _ = self.open_now.pop(fd)
        self.sent.discard(fd)
        self.poller.unregister(fd)
        # No TIME_WAIT: ports would run out at this rate.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        one.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        Load(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])).run()
