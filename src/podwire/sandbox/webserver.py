"""The web stand-in: says who it is and what it was asked. Runs alone: ``python -I -S webserver.py PORT…``.

HTTP/1.1 with keep-alive, on IPv4 and IPv6, and on the same port number UDP, which answers what it
got. The answer is JSON: pod, namespace, node, address (its own), client, method, path, headers,
body. ``/status/<code>`` answers with that code, ``/delay/<seconds>`` after a while (at most 60).
What does not begin as HTTP is answered with itself, so that plain TCP clients see something.

One thread, one selector; imports are kept few because every pod pays for them.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 1 << 20
PIECE = 1 << 16
RETRY = 0.2  # s until the next accept where there was no descriptor left
IP_PKTINFO = 8  # of <linux/in.h>; the socket module has no name for it before Python 3.14
METHODS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"PATC", b"OPTI", b"TRAC", b"CONN")
FAMILIES = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))


class Connection:
    """One TCP client: what it has sent and what it is to get, from `not_before` on."""

    def __init__(self, sock: socket.socket, client: Any) -> None:
        self.sock, self.client = sock, client
        self.received, self.to_send = b"", b""
        self.closing, self.not_before = False, 0.0


class Server:
    """All listeners and connections of one process."""

    def __init__(self, ports: list[int]) -> None:
        self.selector = selectors.DefaultSelector()
        self.delayed: set[Connection] = set()
        self.paused: dict[socket.socket, float] = {}  # listener → when to accept again
        for port in ports:
            for family, address in FAMILIES:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    self.listen(family, address, port, kind)

    def listen(self, family: int, address: str, port: int, kind: int) -> None:
        try:
            sock = socket.socket(family, kind)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET6:
                return  # no IPv6 here
            print(f"cannot listen on port {port}: {error}", file=sys.stderr, flush=True)
            sys.exit(1)
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
        elif family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.selector.register(sock, selectors.EVENT_READ, None if kind == socket.SOCK_STREAM else "udp")

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select(self.until_due()):
                sock: Any = key.fileobj
                try:
                    if isinstance(key.data, Connection):
                        self.ready(key.data)
                    elif key.data == "udp":
                        echo(sock)
                    else:
                        self.accept(sock)
                except OSError:
                    continue
            now = time.monotonic()
            for connection in [one for one in self.delayed if one.not_before <= now]:
                self.delayed.discard(connection)
                self.selector.register(connection.sock, selectors.EVENT_WRITE, connection)
            for listener in [one for one, due in self.paused.items() if due <= now]:
                del self.paused[listener]
                self.selector.register(listener, selectors.EVENT_READ)

    def until_due(self) -> float | None:
        due = [one.not_before for one in self.delayed] + list(self.paused.values())
        return max(0.0, min(due) - time.monotonic()) if due else None

    def accept(self, listener: socket.socket) -> None:
        try:
            sock, client = listener.accept()
        except BlockingIOError:
            return
        except OSError:  # readable all the same: without a pause this would only spin
            self.selector.unregister(listener)
            self.paused[listener] = time.monotonic() + RETRY
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(sock, selectors.EVENT_READ, Connection(sock, client))

    def ready(self, connection: Connection) -> None:
        try:
            if connection.to_send:
                sent = connection.sock.send(connection.to_send)
                connection.to_send = connection.to_send[sent:]
                if not connection.to_send and connection.received and not connection.closing:
                    answer(connection)  # a request that came right behind the last one
            else:
                data = connection.sock.recv(PIECE)
                if not data or len(connection.received) > LIMIT:
                    return self.close(connection)
                connection.received += data
                answer(connection)
        except BlockingIOError:
            return None
        except OSError:
            return self.close(connection)
        if connection.closing and not connection.to_send:
            return self.close(connection)
        if connection.to_send and connection.not_before > time.monotonic():
            self.selector.unregister(connection.sock)
            self.delayed.add(connection)
            return None
        events = selectors.EVENT_WRITE if connection.to_send else selectors.EVENT_READ
        self.selector.modify(connection.sock, events, connection)
        return None

    def close(self, connection: Connection) -> None:
        self.selector.unregister(connection.sock)
        connection.sock.close()


def echo(sock: socket.socket) -> None:
    """Answer from the address that was asked, which need not be the one the route back would choose."""
    data, details, _, client = sock.recvmsg(65535, 256)
    source = []
    for level, kind, info in details:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            source = [(level, kind, bytes(4) + info[4:8] + bytes(4))]  # interface 0, local address
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            source = [(level, kind, info[:16] + bytes(4))]
    sock.sendmsg([data], source, 0, client)


def answer(connection: Connection) -> None:
    """Turn what was received into what is to be sent, as soon as a request is whole."""
    if connection.received[:4] not in METHODS:
        if len(connection.received) >= 4 or b"\n" in connection.received:
            connection.to_send, connection.received = connection.received, b""
        return
    head, found, rest = connection.received.partition(b"\r\n\r\n")
    if not found:
        return
    lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip()] = value.strip()
    lower = {name.lower(): value for name, value in headers.items()}
    given = lower.get("content-length", "0")
    length = int(given) if given.isdigit() else 0
    if len(rest) < length:
        return
    connection.received = rest[length:]
    connection.to_send += respond(connection, lines[0], headers, lower, rest[:length])


def respond(
    connection: Connection, line: str, headers: dict[str, str], lower: dict[str, str], body: bytes
) -> bytes:
    method, path, version = [*line.split(" "), "", "", ""][:3]
    connection.closing = lower.get("connection", "").lower() == "close" or version == "HTTP/1.0"
    status = 200
    parts = path.partition("?")[0].split("/")
    if len(parts) == 3 and parts[2].isdigit():
        if parts[1] == "status" and 200 <= int(parts[2]) <= 599:
            status = int(parts[2])
        elif parts[1] == "delay":
            connection.not_before = time.monotonic() + min(60, int(parts[2]))
    told = {
        "pod": socket.gethostname(),
        "namespace": os.environ.get("POD_NAMESPACE", ""),
        "node": os.environ.get("NODE_NAME", ""),
        "address": plain(connection.sock.getsockname()),
        "client": plain(connection.client),
        "method": method,
        "path": path,
        "headers": headers,
        "body": body.decode("utf-8", "replace"),
    }
    data = json.dumps(told, indent=1).encode() + b"\n"
    print(f'{plain(connection.client)} "{line}" {status}', flush=True)
    closing = "close" if connection.closing else "keep-alive"
    head = f"HTTP/1.1 {status} Stand-in\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(data)}\r\nConnection: {closing}\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else data)


def plain(address: Any) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    Server([int(port) for port in sys.argv[1:]]).serve()
