"""Random bytes and wrong types into every verb: always an answer, never a 5xx, and the server goes on.

The seed is printed; PODWIRE_FUZZ_SEED and PODWIRE_FUZZ_CASES choose others.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from podwire.apiserver import ApiServer, ServerConfig
from podwire.apiserver.kinds import Kind
from podwire.apiserver.protobuf import MEDIA_TYPE
from podwire.controllermanager import standard
from podwire.kube.credentials import Access

CASES = int(os.environ.get("PODWIRE_FUZZ_CASES", "2500"))
SEED = int(os.environ.get("PODWIRE_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)

TYPES = (
    *("application/json", "application/yaml", MEDIA_TYPE, "text/plain", ""),
    *("application/json-patch+json", "application/merge-patch+json"),
    *("application/strategic-merge-patch+json", "application/apply-patch+yaml"),
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1 << 62, -(1 << 70), 1.5, 1e308, "", "x", "\x00", "-", "a/b", "ü" * 300),
    *(
        "10.0.0.1",
        "None",
        "25%",
        "2026-01-01T00:00:00Z",
        [],
        {},
        [None],
        [[]],
        [{}],
        {"": ""},
        {"a": {"b": []}},
    ),
    *("Always", "TCP", "$patch", {"$patch": "delete"}, {"$patch": "x"}, [{"$patch": "replace"}]),
)
QUERIES = (
    *(
        "dryRun=All",
        "dryRun=x",
        "fieldManager=a",
        "fieldValidation=Strict",
        "force=true",
        "limit=1",
        "limit=x",
    ),
    *(
        "continue=abcd",
        "labelSelector=a%3Db",
        "labelSelector=%21%21",
        "fieldSelector=metadata.name%3Da",
        "watch=true",
    ),
    *(
        "resourceVersion=1",
        "resourceVersion=-",
        "timeoutSeconds=1",
        "includeObject=Object",
        "propagationPolicy=Orphan",
    ),
    *("gracePeriodSeconds=0", "tailLines=x", "container=%00", "fieldSelector=%3D%3D", "as=x"),
)


class Chance:
    """Random requests, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def json(self, depth: int = 0) -> Any:
        pick = self.random.random()
        if depth > 4 or pick < 0.5:
            return self.random.choice(VALUES)
        if pick < 0.75:
            return [self.json(depth + 1) for _ in range(self.random.randrange(4))]
        return {
            self.random.choice(("name", "spec", "a", "metadata", "x")): self.json(depth + 1) for _ in range(3)
        }

    def like(self, schema: Any, known: dict[str, Any], depth: int = 0) -> Any:
        """Something close to what a schema describes, with a wrong turn now and then."""
        if self.random.random() < 0.02 or depth > 6 or not isinstance(schema, dict):
            return self.json(2)
        schema = {**schema, **(schema["allOf"][0] if schema.get("allOf") else {})}
        if "$ref" in schema:
            return self.like(known[schema["$ref"].rsplit("/", 1)[-1]], known, depth + 1)
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        match schema.get("type"):
            case "object" if "properties" in schema:
                needed = schema.get("required") or ()
                return {
                    name: self.like(inner, known, depth + 1)
                    for name, inner in schema["properties"].items()
                    if name in needed or self.random.random() < 0.3
                }
            case "object":
                return {"app": self.random.choice(("web", 1, None, "x y"))}
            case "array":
                return [
                    self.like(schema.get("items"), known, depth + 1) for _ in range(self.random.randrange(3))
                ]
            case "integer":
                return self.random.choice((0, 1, 80, 70000, -1, 3))
            case "boolean":
                return self.random.random() < 0.5
        return self.random.choice(
            ("a", "web", "http", "10.0.0.0/8", "10.96.0.9", "Exists", "100m", "kubernetes.io/x")
        )

    def body(self, kind: Kind, known: dict[str, Any]) -> bytes:
        pick = self.random.random()
        if pick < 0.15:
            return self.random.randbytes(self.random.randrange(200))
        if pick < 0.2:
            return b"k8s\x00" + self.random.randbytes(self.random.randrange(60))
        if pick < 0.25:
            return b"[{" * self.random.randrange(3000)
        if pick < 0.4:
            return msgspec.json.encode(self.json())
        value = self.like(kind.schema, known)
        if isinstance(value, dict):
            value = {**value, "kind": kind.kind, "apiVersion": kind.api_version}
            value["metadata"] = {"name": self.random.choice("abc"), "labels": {"app": "web"}}
            if self.random.random() < 0.2:
                value["metadata"] = self.like({"$ref": "/ObjectMeta"}, known)
        if self.random.random() < 0.2:
            value = [
                {
                    "op": self.random.choice(("add", "remove", "test", "copy", "x")),
                    "path": path,
                    "value": value,
                }
                for path in ("/spec", "/metadata/labels/app", "/spec/containers/0", "//", "")
            ]
        return msgspec.json.encode(value)

    def request(self, kind: Kind) -> tuple[str, str, str]:
        """Method, path and content type; most of the time ones that belong together."""
        method, path = self.random.choice(METHODS), self.path(kind)
        content_type = self.random.choice(TYPES)
        if self.random.random() < 0.7:
            base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
            place = f"{base}/namespaces/default" if kind.namespaced else base
            method = self.random.choice(("POST", "POST", "PUT", "PATCH", "PATCH", "DELETE", "GET"))
            name = "" if method == "POST" else "/" + self.random.choice("abc")
            path = f"{place}/{kind.plural}{name}"
            content_type = self.random.choice(TYPES[5:]) if method == "PATCH" else "application/json"
        return method, path, content_type

    def path(self, kind: Kind) -> str:
        base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        if self.random.random() < 0.03:
            return (
                base
                + "/"
                + "".join(self.random.choice("/%ab\u20ac..~") for _ in range(20)).replace("%", "%25")
            )
        place = "/namespaces/default" if kind.namespaced and self.random.random() < 0.9 else ""
        name = "/" + self.random.choice(("a", "b", "c", "..", "%00")) if self.random.random() < 0.6 else ""
        subs = [one.name for one in kind.subresources]
        sub = (
            "/" + self.random.choice([*subs, "status", "nothing"])
            if name and self.random.random() < 0.3
            else ""
        )
        query = "&".join(self.random.sample(QUERIES, self.random.randrange(3)))
        return f"{base}{place}/{kind.plural}{name}{sub}" + (f"?{query}" if query else "")


async def storm(directory: Path) -> dict[int, int]:
    from podwire.apiserver.schemas import definitions

    chance, codes = Chance(SEED), {}
    server = ApiServer(ServerConfig(directory=directory))
    await server.start()
    controllers = standard(server.objects, server.authority.pem)
    try:
        credentials = server.authority.client("fuzz", ())
        access = Access(server.url, server.authority.pem, credentials.certificate, credentials.key)
        timeout = aiohttp.ClientTimeout(total=20)
        connector = aiohttp.TCPConnector(ssl=access.tls(), limit=4)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            for case in range(CASES):
                kind = chance.random.choice(list(server.registry))
                method, path, content_type = chance.request(kind)
                if method == "DELETE" and kind.plural in ("namespaces", "customresourcedefinitions"):
                    continue
                if "watch=true" in path and "timeoutSeconds" not in path:
                    path += "&timeoutSeconds=1"
                data = chance.body(kind, definitions())
                headers = {"Content-Type": content_type}
                async with session.request(method, server.url + path, data=data, headers=headers) as answer:
                    await answer.read()
                codes[answer.status] = codes.get(answer.status, 0) + 1
                # 503: nothing runs pods here, which exec and its like are told.
                shown = f"case {case} of seed {SEED}: {method} {path} {headers} {data[:300]!r}"
                assert answer.status < 500 or answer.status == 503, f"{answer.status}: {shown}"
                controllers.settle(float(case), 50)
            async with session.get(server.url + "/api/v1/pods") as answer:
                assert answer.status == 200
    finally:
        controllers.close()
        await server.stop()
    return codes


def test_nothing_is_a_fault_of_the_server(tmp_path: Path) -> None:
    print(f"seed {SEED}, {CASES} cases")
    codes = asyncio.run(storm(tmp_path))
    print(dict(sorted(codes.items())))
    assert {200, 201, 400, 404, 405, 415, 422} <= set(codes)
