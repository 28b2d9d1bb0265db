# ruff: noqa: E501  the inputs are easier to compare in one line each
"""Parsers on input made to cost: each ends by itself, below limits of memory and CPU that the kernel holds.

One process for each parser, with RLIMIT_AS and RLIMIT_CPU: what does not end in time is killed, what
takes too much memory fails.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

CPU = 20  # s for all inputs of a parser; each takes milliseconds where nothing is wrong
MEMORY = 1 << 30  # of address space, numpy and all

PARSERS = {
    "YAML": """
from podwire.kube.documents import parse_yaml
bomb = "a: &a [x,x,x,x,x,x,x,x,x]\\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\\n" for n in range(12)
)
for text in (DEEP, "{" * 100_000, "- " * 50_000, bomb, "? " * 20_000, "!!python/object/apply:os.system [ls]",
             "a: " + "x" * 5_000_000, "&a [*a]", "\\x00", "<<: *x", "--- " * 100_000):
    refuses(lambda: list(parse_yaml(text)), InvalidObject)
""",
    "policies": """
from podwire.policy.parse import parse
def of(**spec):
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"},
            "spec": {"endpointSelector": {}, **spec}}
nested = {}
for _ in range(900):
    nested = {"a": nested}
many = [{"key": "k", "operator": "In", "values": [str(n) for n in range(20_000)]}]
for spec in (
    {"ingress": nested}, {"ingress": [nested]}, {"ingress": [{}] * 50_000},
    {"ingress": [{"fromCIDR": [f"10.{n >> 8 & 255}.{n & 255}.0/24" for n in range(50_000)]}]},
    {"ingress": [{"toPorts": [{"ports": [{"port": str(n)} for n in range(50_000)]}]}]},
    {"ingress": [{"fromEndpoints": [{"matchExpressions": many * 5}]}]},
    {"ingress": [{"fromCIDRSet": [{"cidr": "0.0.0.0/0", "except": [f"10.0.{n & 255}.0/24" for n in range(20_000)]}]}]},
    {"egress": [{"toPorts": [{"ports": [{"port": "1", "endPort": 10**4000}]}]}]},
    {"endpointSelector": {"matchLabels": {"k" * 1_000_000: "v"}}},
):
    refuses(lambda: parse(of(**spec)), InvalidObject)
""",
    "protobuf": """
from podwire.apiserver.protobuf import Malformed, decode
from podwire.apiserver.status import StatusError
inner = b""
for _ in range(3000):
    size, length = len(inner), b""
    while True:
        length += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            break
    inner = b"\\x12" + length + inner
for raw in (b"k8s\\0" + inner, b"k8s\\0" + b"\\xff" * 1_000_000, b"k8s\\0" + b"\\x0a\\xff\\xff\\xff\\xff\\x0f", b"k8s\\0" * 100_000):
    refuses(lambda: decode(raw), (Malformed, StatusError))
""",
    "SPDY": """
import zlib
from podwire.apiserver.spdy import DICTIONARY, Framer, ProtocolError
def frame(block):
    squeeze = zlib.compressobj(zdict=DICTIONARY)
    body = bytes(10) + squeeze.compress(block) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    return b"\\x80\\x03\\x00\\x01\\x00" + len(body).to_bytes(3, "big") + body
for block in (bytes(100_000_000), b"\\xff\\xff\\xff\\xff" + bytes(1_000_000), b"\\0\\0\\0\\1\\xff\\xff\\xff\\xff"):
    refuses(lambda: list(Framer().receive(frame(block))), ProtocolError)
""",
    "DNS": """
import asyncio
from podwire.sandbox.dns.server import Answerer
class Nothing:
    domain = "cluster.local"
    def owns(self, name): return True
    def lookup(self, name): return None
    def reverse(self, address): return None
header = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0"
loop = header + b"\\xc0\\x0c\\0\\1\\0\\1"
chain = header[:5] + b"\\xff" + header[6:] + b"".join(b"\\1a" + (0xc000 | (12 + 4 * n)).to_bytes(2, "big") for n in range(4000))
for wire in (b"", header, loop, chain, header + b"\\x3f" * 60_000, b"\\xff" * 65_535, header + b"\\1a" * 30_000):
    asyncio.run(Answerer(Nothing(), ()).answer(wire, udp=True))
""",
    "selectors": """
from podwire.apiserver.selectors import labels
from podwire.apiserver.status import StatusError
for text in ("a," * 20_000, "a in (" + "b," * 200_000, "(" * 100_000, "!" * 100_000, "a" + "=" * 100_000, "a in (" * 50_000):
    refuses(lambda: labels(text), StatusError)
""",
    "flow records": """
import os
import numpy as np
from podwire.abi import dtypes
from podwire.hubble.decode import decode, empty
raw = os.urandom(dtypes.EVENT.itemsize * 100_000)
records = np.frombuffer(raw, dtype=dtypes.EVENT)
decode(records, 0, empty(len(records)))
""",
}  # fmt: skip

PREAMBLE = f"""
import resource
from podwire.base.errors import InvalidObject
DEEP = "[" * 100_000
def refuses(work, error):
    "It may as well be taken: what counts is that it ends."
    try:
        work()
    except error:
        pass
resource.setrlimit(resource.RLIMIT_CPU, ({CPU}, {CPU}))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
"""


@pytest.mark.parametrize("parser", PARSERS)
def test_hostile_input_costs_little(parser: str) -> None:
    command = [sys.executable, "-c", PREAMBLE + PARSERS[parser]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < MEMORY >> 10
