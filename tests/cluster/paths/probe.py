"""Questions to addresses, `probe.py tcp|udp/ADDRESS/PORT …`: prints for each what answered, as JSON.

Standard library only: it runs inside pods, and in pods' network namespaces from outside of their
cgroup, where the socket programs do not see it and Services are translated per packet.
"""

import json
import socket
import sys

WAIT = 2.0


def ask(protocol: str, address: str, port: int) -> dict[str, object]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as one:
        one.settimeout(WAIT)
        one.connect((address, port))
        one.sendall(b"GET / HTTP/1.0\r\n\r\n" if protocol == "tcp" else b"hello")
        answer = one.recv(65536)
        return {"peer": one.getpeername()[0], "own": one.getsockname()[0], "answer": answer.decode()}


def tried(question: str) -> dict[str, object]:
    protocol, address, port = question.split("/")
    try:
        return ask(protocol, address, int(port))
    except OSError as error:
        return {"error": str(error) or type(error).__name__}


if __name__ == "__main__":
    print(json.dumps({question: tried(question) for question in sys.argv[1:]}))
