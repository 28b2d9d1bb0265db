"""What is done in a guest: probes, loads, the demo, tests of packets. Leaves files in $OUT.

    inside.py [--objects DIRECTORY]... [--demo] [--packets] [--takeover]

`kernel.json` has the features and, by directory of objects, what became of each program;
`phases.json` how long each part took; `demo.log`, `packets.log`, `packets.xml` and so on are what
the programs said. Nothing is judged here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podwire.base.config import AgentConfig
from podwire.base.errors import PodwireError
from podwire.bpf import elf, probe
from podwire.bpf.object import ObjectSpec, load
from podwire.datapath import hooks, objects
from podwire.datapath.programs import plan

OUT = Path(os.environ["OUT"])
OBJECTS = hooks.objects(hooks.Where)
NETWORK_DEVICE, TUNNEL_DEVICE = 4, 5  # any numbers: no packet passes
VERIFIER_STATISTICS = 4  # BPF_LOG_STATS
phases: dict[str, float] = {}


@contextmanager
def phase(name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        phases[name] = round(time.monotonic() - start, 1)


class Said(logging.Handler):
    """The verifier's words about programs it took, which libbpf says at debug level."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


def constants(tunnel: bool) -> dict[str, int | bytes]:
    """A node's, as its agent sets them: what is off the verifier does not look at."""
    wanted = plan(
        AgentConfig(node_name="n1"),
        ("172.18.0.1", "fd00::1"),
        network_device=NETWORK_DEVICE,
        tunnel_device=TUNNEL_DEVICE if tunnel else 0,
        tunnel_mtu=1450 if tunnel else 0,
    )
    return wanted.constants


def loads(directory: Path) -> dict[str, Any]:
    """Object/program → instructions the verifier looked at, native and with a tunnel; or its last words."""
    said = Said()
    libbpf = logging.getLogger("podwire.bpf.library")
    libbpf.addHandler(said)
    libbpf.setLevel(logging.DEBUG)
    found: dict[str, Any] = {}
    for name in OBJECTS:
        path = str(directory / f"{name}.bpf.o")
        handle = elf.open_file(path)
        programs = [program for program, _ in elf.programs(handle)]
        elf.close(handle)
        for program in programs:
            found[f"{name}/{program}"] = [one(path, program, tunnel, said) for tunnel in (False, True)]
    libbpf.removeHandler(said)
    return found


def one(path: str, program: str, tunnel: bool, said: Said) -> int | str:
    said.text = ""
    spec = ObjectSpec(path, constants(tunnel), programs=(program,), verifier_log=VERIFIER_STATISTICS)
    try:
        load(spec).close()
    except PodwireError as error:
        return f"{error} {' | '.join(said.text.splitlines()[-5:])}"
    counts = re.findall(r"processed (\d+) insns", said.text)
    return int(counts[-1]) if counts else "the verifier did not say how much it looked at"


def run(name: str, *command: str, **environment: str) -> None:
    with phase(name), (OUT / f"{name}.log").open("w") as log:
        everything = {**os.environ, **environment}
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=everything)
        (OUT / f"{name}.code").write_text(str(done.returncode))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", action="append", default=[])
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--packets", action="store_true")
    parser.add_argument("--takeover", action="store_true")
    chosen = parser.parse_args()
    with phase("probes"):
        known = {
            "release": os.uname().release,
            "variant": objects.variant(),
            "features": {feature.name: feature.supported for feature in probe.features()},
        }
    with phase("loads"):
        directories = [objects.directory(), *map(objects.directory, chosen.objects)]
        known["loads"] = {each: loads(Path(each)) for each in directories}
    (OUT / "kernel.json").write_text(json.dumps(known))
    if chosen.demo:
        run("demo", str(Path(sys.executable).with_name("podwire")), "demo")
    for name, tests in (("packets", "tests/packets"), ("takeover", "tests/cluster/datapath")):
        if getattr(chosen, name):
            quick = ("-q", "--durations=15", "-p", "no:cacheprovider", f"--junitxml={OUT / name}.xml")
            # What is left goes with the guest, and looking for it takes longer than most tests.
            run(name, sys.executable, "-m", "pytest", *quick, tests, PODWIRE_LEAK_CHECK="off")
    (OUT / "phases.json").write_text(json.dumps(phases))


if __name__ == "__main__":
    main()
