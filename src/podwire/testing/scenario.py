"""Scenario files: manifests in; tables, maps and flows out; one file, read by people and run by pytest.

A file is a script, then blocks that begin with ``-- name --``. The script's lines::

    # a comment
    apply pods.yaml policy.yaml        apply the objects of these blocks
    delete CiliumNetworkPolicy prod/a  take one away again
    expect table policy_entries        compare with block "table policy_entries"
    expect map ipcache                 the same of a kernel map (with a kernel only)
    send tcp client:4000 -> web:80     a packet that opens a connection
    expect flows                       compare what was sent since with block "flows"

Words after a table's name tell several blocks of one table apart: ``expect table rules after``. The first
line may be ``cluster``, with ``dual`` for IPv6 beside IPv4 and ``tunnel`` for tunnels between nodes.
There are two nodes: n1, whose agent this is, and n2. `run` gives the blocks as they came out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from podwire.base.errors import InvalidObject
from podwire.model import protocol
from podwire.testing import show
from podwire.testing.node import Packet, ScenarioNode

BLOCK = re.compile(r"^-- (.+) --$")
SENDING = re.compile(r"(\w+) (\S+) -> (\S+)")
PROTOCOLS = {protocol.name(one).lower(): one for one in (protocol.TCP, protocol.UDP, protocol.ICMP)}
PORT_OF_CLIENTS = 4000


class Engine(Protocol):
    """Who decides about packets: the tables looked up, or a kernel that was given them."""

    def send(self, packet: Packet) -> list[tuple[str, bool, int]]:
        """(direction, allowed, rule) for each time policy was asked, in order."""
        ...

    def dump(self, name: str) -> str | None:
        """A map as text; None if there is no kernel."""
        ...


@dataclass
class Scenario:
    """A file, taken apart. `blocks` keep their order."""

    script: list[str]
    blocks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Scenario:
        script: list[str] = []
        blocks: dict[str, str] = {}
        name = ""
        for line in text.splitlines(keepends=True):
            found = BLOCK.match(line.rstrip("\n"))
            if found:
                name = found[1]
                if name in blocks:
                    raise InvalidObject(name, "is in the file twice")
                blocks[name] = ""
            elif name:
                blocks[name] += line
            else:
                script.append(line.rstrip("\n"))
        return cls(script, blocks)

    def text(self) -> str:
        script = "".join(f"{line}\n" for line in self.script)
        return script + "".join(f"-- {name} --\n{content}" for name, content in self.blocks.items())

    def options(self) -> set[str]:
        """Words of the line ``cluster``."""
        return {word for line in self.commands() if line.startswith("cluster") for word in line.split()[1:]}

    def commands(self) -> Iterator[str]:
        for line in self.script:
            command = line.split("#")[0].strip()
            if command:
                yield command

    def run(self, node: ScenarioNode, engine: Engine) -> dict[str, str]:
        """Each expected block as it came out; blocks that need a kernel only where there is one."""
        return dict(_Run(self, node, engine).blocks())


class _Run:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, node: ScenarioNode, engine: Engine) -> None:
        self.scenario, self.node, self.engine = scenario, node, engine
        self.flows: list[tuple[str, ...]] = []
        self.sent = 0

    def blocks(self) -> Iterator[tuple[str, str]]:
        for command in self.scenario.commands():
            verb, _, rest = command.partition(" ")
            match verb:
                case "cluster":
                    pass
                case "apply":
                    for name in rest.split():
                        self.node.apply(self._block(name))
                    self.node.settle()
                case "delete":
                    self.node.delete(*rest.split())
                    self.node.settle()
                case "send":
                    self._send(rest)
                case "expect":
                    yield from self._expect(rest)
                case _:
                    raise InvalidObject(command, "is no command of a scenario")

    def _block(self, name: str) -> str:
        if name not in self.scenario.blocks:
            raise InvalidObject(name, "is no block of the file")
        return self.scenario.blocks[name]

    def _expect(self, rest: str) -> Iterator[tuple[str, str]]:
        what, _, name = rest.partition(" ")
        if what == "table":
            shown = name.split()[0]
            if shown not in show.TABLES:
                raise InvalidObject(shown, "cannot be shown", hint=f"known: {', '.join(show.TABLES)}")
            yield rest, show.table(self.node.tables, shown)
        elif what == "map":
            text = self.engine.dump(name.split()[0])
            if text is not None:
                yield rest, text
        elif what == "flows":
            header = ("PACKET", "DIRECTION", "VERDICT", "BECAUSE")
            yield rest, show.columns([header, *self.flows])
            self.flows = []
        else:
            raise InvalidObject(rest, "cannot be expected", hint="table NAME, map NAME or flows")

    def _send(self, rest: str) -> None:
        found = SENDING.fullmatch(rest)
        if found is None or found[1] not in PROTOCOLS:
            raise InvalidObject(rest, "is no packet", hint="send tcp client:4000 -> web:80")
        self.sent += 1
        source, source_port = _place(found[2])
        target, port = _place(found[3])
        packet = self.node.packet(
            source, target, PROTOCOLS[found[1]], source_port or PORT_OF_CLIENTS + self.sent, port
        )
        name = f"{found[1]} {found[2]} -> {found[3]}"
        asked = self.engine.send(packet)
        for direction, allowed, rule in asked:
            verdict = "forwarded" if allowed else "dropped"
            self.flows.append((name, direction, verdict, show.because(self.node.tables, rule)))
        if not asked:
            self.flows.append((name, "-", "forwarded", "-"))


def _place(text: str) -> tuple[str, int]:
    """``web:80`` → (web, 80); an IPv6 address is written ``[fd00::1]:80``."""
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        return name, int(port.lstrip(":") or 0)
    name, _, port = text.partition(":")
    if port and not port.isdigit():
        raise InvalidObject(text, "is no place", hint="name, name:port, or [IPv6]:port")
    return name, int(port or 0)


def check(scenario: Scenario, came_out: dict[str, str]) -> list[str]:
    """What differs, as sentences with both texts."""
    problems = []
    for name, text in came_out.items():
        if scenario.blocks.get(name) != text:
            expected = scenario.blocks.get(name, "(no such block)\n")
            problems.append(f"block {name!r}\n--- expected ---\n{expected}--- came out ---\n{text}")
    return problems


def update(scenario: Scenario, came_out: dict[str, str]) -> Scenario:
    """The scenario with its expected blocks as they came out."""
    return Scenario(scenario.script, scenario.blocks | came_out)
