"""The web stand-in: says who it is and what it was asked. Runs alone: ``python -I -S webserver.py PORT…``.

HTTP/1.1 with keep-alive, on IPv4 and IPv6, and on the same port number UDP, which answers what it
got. The answer is JSON: pod, namespace, node, address (its own), client, method, path, headers,
body. ``/status/<code>`` answers with that code, ``/delay/<seconds>`` after a while (at most 60).
A first line that is not HTTP's is answered with itself, so that plain TCP clients see something.

One thread, one selector; imports are kept few because every pod pays for them.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time

LIMIT = 1 << 20
METHODS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"PATC", b"OPTI", b"TRAC", b"CONN")


class Connection:
    """One TCP client and what it has sent so far."""

    def __init__(self, sock, client):
        self.sock, self.client = sock, client
        self.received, self.to_send = b"", b""
        self.closing, self.not_before = False, 0.0


class Server:
    """All listeners and connections of one process."""

    def __init__(self, ports):
        self.selector = selectors.DefaultSelector()
        self.waiting = set()
        for port in ports:
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                self.listen(family, address, port)

    def listen(self, family, address, port):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                sock = socket.socket(family, kind)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
            except OSError as error:
                if family == socket.AF_INET6:
                    continue  # no IPv6 here
                print(f"cannot listen on port {port}: {error}", file=sys.stderr, flush=True)
                sys.exit(1)
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.listen(1024)
                self.selector.register(sock, selectors.EVENT_READ, self.accept)
            else:
                self.selector.register(sock, selectors.EVENT_READ, self.echo)

    def serve(self):
        while True:
            now = time.monotonic()
            for connection in [one for one in self.waiting if one.not_before <= now]:
                self.waiting.discard(connection)
                self.watch(connection)
            soonest = min((one.not_before for one in self.waiting), default=None)
            for key, _ in self.selector.select(None if soonest is None else max(0.0, soonest - now)):
                try:
                    key.data(key.fileobj)
                except OSError:
                    continue

    def accept(self, listener):
        sock, client = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, client)
        self.selector.register(sock, selectors.EVENT_READ, lambda _: self.ready(connection))

    def echo(self, sock):
        data, client = sock.recvfrom(65535)
        sock.sendto(data, client)

    def watch(self, connection):
        events = selectors.EVENT_WRITE if connection.to_send else selectors.EVENT_READ
        self.selector.modify(connection.sock, events, lambda _: self.ready(connection))

    def ready(self, connection):
        try:
            if connection.to_send:
                sent = connection.sock.send(connection.to_send)
                connection.to_send = connection.to_send[sent:]
            else:
                data = connection.sock.recv(65536)
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
        if connection.not_before > time.monotonic():
            self.waiting.add(connection)
            self.selector.modify(connection.sock, 0 or selectors.EVENT_READ, lambda _: None)
            return None
        return self.watch(connection)

    def close(self, connection):
        self.selector.unregister(connection.sock)
        self.waiting.discard(connection)
        connection.sock.close()


def answer(connection):
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
    length = lower.get("content-length", "0")
    length = int(length) if length.isdigit() else 0
    if len(rest) < length:
        return
    connection.received = rest[length:]
    connection.to_send += respond(connection, lines[0], headers, lower, rest[:length])


def respond(connection, line, headers, lower, body):
    method, path, version = (line.split(" ") + ["", "", ""])[:3]
    connection.closing = lower.get("connection", "").lower() == "close" or version == "HTTP/1.0"
    status = 200
    parts = path.partition("?")[0].split("/")
    if len(parts) == 3 and parts[2].isdigit():
        if parts[1] == "status" and 200 <= int(parts[2]) <= 599:
            status = int(parts[2])
        elif parts[1] == "delay":
            connection.not_before = time.monotonic() + min(60, int(parts[2]))
    text = json.dumps(
        {
            "pod": socket.gethostname(),
            "namespace": os.environ.get("POD_NAMESPACE", ""),
            "node": os.environ.get("NODE_NAME", ""),
            "address": plain(connection.sock.getsockname()),
            "client": plain(connection.client),
            "method": method,
            "path": path,
            "headers": headers,
            "body": body.decode("utf-8", "replace"),
        },
        indent=1,
    )
    data = text.encode() + b"\n"
    print(f'{plain(connection.client)} "{line}" {status}', flush=True)
    closing = "close" if connection.closing else "keep-alive"
    head = f"HTTP/1.1 {status} Stand-in\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(data)}\r\nConnection: {closing}\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else data)


def plain(address):
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    Server([int(port) for port in sys.argv[1:]]).serve()
