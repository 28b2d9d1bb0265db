"""The local socket: whatever is sent is never the agent's fault."""

from __future__ import annotations

import asyncio
import json
import random
import string
from typing import Any

from tests.unit.agent.conftest import Serve

from podwire.agent import server
from podwire.client.agent import AsyncAgentClient

SEED = random.randrange(1 << 32)


def test_whatever_is_sent_is_never_the_agents_fault(serve: Serve) -> None:
    """Random bytes, paths, bodies of wrong types: 4xx (or an end), never 5xx, and the agent goes on."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)

    async def test(client: AsyncAgentClient, node: Any) -> None:
        seen: set[int | None] = set()
        for number in range(400):
            short = chance.random() < 0.1
            raw = garbage(chance) if number % 4 == 0 else request(chance, missing=7 if short else 0)
            status = await send(client.path, raw, end=short)
            assert status is None or status < 500, (status, raw)
            seen.add(status)
        assert {200, 400, 404, 405} <= seen, "the requests are not as random as they should be"
        assert (await client.get("/v1/healthz"))["cilium"]["state"] == "Ok"

    serve(test)


async def send(path: str, raw: bytes, *, end: bool) -> int | None:
    """The status of the answer; None if there was none. `end`: the client says no more."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(raw)
        if end:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(64), 5)
    except ConnectionError:
        return None
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else None


def garbage(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 300)) + b"\r\n\r\n"


WORDS = [
    "",
    "0",
    "-1",
    "5",
    "65536",
    "9" * 30,
    "%00",
    "%ff%fe",
    "..",
    "%2e%2e%2f",
    "cilium-local:x",
    "ipv4:",
    "ü",
    "a" * 3000,
    "[::]",
]


def request(chance: random.Random, missing: int) -> bytes:
    """A request with a known path and wrong everything else; `missing` bytes of its body never come."""
    routes = server.calls.ROUTES + server.own.ROUTES
    method, path, _ = chance.choice(routes)
    for name in ("{id}", "{ip}", "{name}", "{uuid}"):
        path = path.replace(name, chance.choice(WORDS))
    if chance.random() < 0.3:
        method = chance.choice(
            ["GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "".join(chance.choices(string.printable, k=5))]
        )
    if chance.random() < 0.5:
        path += "?" + "&".join(f"{name}={chance.choice(WORDS)}" for name in ("owner", "family", "labels"))
    body = json.dumps(value(chance, 3)).encode() if chance.random() < 0.7 else chance.randbytes(50)
    if chance.random() < 0.1:
        body = b"[" * 100_000
    length = len(body) + missing
    head = f"{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n"
    return f"{head}Expiration: {chance.choice(WORDS)}\r\n\r\n".encode() + body


def value(chance: random.Random, depth: int) -> Any:
    names = [
        "container-id",
        "container-netns-path",
        "k8s-pod-name",
        "addressing",
        "ipv4",
        "mac",
        "interface-index",
        "x",
    ]
    pick = chance.randrange(7 if depth else 5)
    match pick:
        case 5:
            return {name: value(chance, depth - 1) for name in chance.sample(names, 4)}
        case 6:
            return [value(chance, depth - 1) for _ in range(3)]
        case _:
            return [None, True, chance.choice([-1, 1 << 70, 0.5]), "", chance.choice(WORDS)][pick]
