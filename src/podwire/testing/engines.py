"""Who decides about a scenario's packets: the tables looked up in Python, or the shipped programs.

Both are asked the same and must say the same: a scenario's flows are one block.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from struct import pack as packed
from typing import TYPE_CHECKING

from podwire.abi.enums import EventKind, PolicyVerdict
from podwire.base.addresses import pack
from podwire.model import identity
from podwire.model.rule import Direction
from podwire.state.tables import EndpointRow
from podwire.testing.node import Packet, ScenarioNode

if TYPE_CHECKING:
    from podwire.testing.world import World

Asked = list[tuple[str, bool, int]]
ICMP = (1, 58)
UNDERLAY_MACS = bytes.fromhex("02aa00000001 02aa00000002")


class Lookup:
    """The tables, looked up as the kernel does it."""

    def __init__(self, node: ScenarioNode) -> None:
        self.node = node

    def send(self, packet: Packet) -> Asked:
        asked: Asked = []
        packet = self._translated(packet)
        sides = (
            (Direction.EGRESS, packet.sender, packet.destination),
            (Direction.INGRESS, packet.receiver, packet.source),
        )
        for direction, endpoint, peer in sides:
            if endpoint is None or not self._enforced(endpoint, direction):
                continue
            number = self.node.walk.identity_at(peer)
            if direction is Direction.INGRESS and number == identity.HOST:
                continue  # what the node itself sends is not asked about
            verdict, _, rule = self.node.walk.verdict(
                endpoint.id, direction, number, packet.protocol, packet.port
            )
            allowed = verdict == PolicyVerdict.ALLOW
            asked.append((direction.word, allowed, rule))
            if not allowed:
                break
        return asked

    def _translated(self, packet: Packet) -> Packet:
        """To the first backend, if the packet is for a service's address."""
        frontend = self.node.tables.frontends.get((packet.destination, packet.port, packet.protocol))
        if frontend is None or not frontend.backends:
            return packet
        backend = self.node.tables.backends.get(frontend.backends[0])
        assert backend is not None
        receiver = next(iter(self.node.tables.endpoints.by("address", backend.address)), None)
        return replace(packet, destination=backend.address, port=backend.port, receiver=receiver)

    def _enforced(self, endpoint: EndpointRow, direction: Direction) -> bool:
        row = self.node.tables.endpoint_policies.get(endpoint.id)
        assert row is not None, f"{endpoint.pod} has no policy yet"
        return row.enforce_ingress if direction is Direction.INGRESS else row.enforce_egress

    def dump(self, name: str) -> str | None:
        return None


class Kernel:
    """The shipped programs with the tables in their maps."""

    def __init__(self, node: ScenarioNode, world: World) -> None:
        self.node, self.world = node, world
        world.reset()

    def write(self) -> None:
        """All tables into the maps, anew."""
        from podwire.datapath.catalogue import declared_by
        from podwire.datapath.spec import Setting
        from podwire.testing.world import OBJECTS

        setting = Setting(self.node.tables, "n1")
        self.world.reset()
        for name, spec in declared_by(OBJECTS).items():
            if spec.tables:
                with self.world.maps[name].untyped() as table:
                    table.put_many(spec.all_entries(setting).items())

    def send(self, packet: Packet) -> Asked:
        self.write()
        if packet.sender is not None:
            made = frame(packet, _mac(packet.sender.host_mac) + _mac(packet.sender.mac))
            outcome = self.world.run("from_pod", made, packet.sender.ifindex)
        elif packet.receiver is not None:
            host = self.node.walk.identity_at(packet.source) == identity.HOST
            received_on = 0 if host else self.world.device("pw-under")
            made = frame(packet, UNDERLAY_MACS)
            outcome = self.world.run("to_pod", made, packet.receiver.ifindex, received_on=received_on)
        else:
            raise AssertionError("neither end of the packet is a pod of this node")
        verdicts = [event for event in outcome.events if event["kind"] == EventKind.VERDICT]
        drops = [event for event in outcome.events if event["kind"] == EventKind.DROP]
        assert bool(drops) == any(event["point"] == 2 for event in verdicts), (
            f"dropped, not by policy: {drops}"
        )
        return [
            (Direction(int(event["direction"])).word, event["point"] == 1, int(event["rule"]))
            for event in verdicts
        ]

    def dump(self, name: str) -> str | None:
        """A map as `podwire bpf` shows it, without numbers that are hashes."""
        from podwire.agent.dumps import DUMPS, Wanted
        from podwire.datapath.catalogue import CATALOGUE
        from podwire.testing.show import columns

        self.write()
        with ExitStack() as stack:
            maps = {
                one: stack.enter_context(table.typed(CATALOGUE[one].key, CATALOGUE[one].value))
                for one, table in self.world.maps.items()
            }
            blocks = DUMPS[name](maps, self.node.tables, Wanted())  # type: ignore[arg-type]
            found = [row for block in blocks for row in block]
        shown = [name for name in (found[0] if found else {}) if name not in HIDDEN]
        lines = [[name.upper() for name in shown]]
        lines += sorted([_text(row[name]) for name in shown] for row in found)
        return columns(lines)


HIDDEN = ("policy", "identity", "rule", "proxy_port", "rev_nat", "set", "id")


def _text(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(sorted(map(str, value))) or "-"
    return str(value) or "-"


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(packet: Packet, macs: bytes) -> bytes:
    """The first packet of a connection. Nothing here reads checksums."""
    if packet.protocol in ICMP:
        segment = packed("!BBHHH", packet.port >> 8, 0, 0, packet.source_port, 1)
    elif packet.protocol == 6:
        segment = packed("!HHIIBBHHH", packet.source_port, packet.port, 1, 0, 0x50, 0x02, 1000, 0, 0)
    else:
        segment = packed("!HHHH", packet.source_port, packet.port, 8, 0)
    there, here = pack(packet.source), pack(packet.destination)
    if ":" in packet.source:
        head = packed("!IHBB", 6 << 28, len(segment), packet.protocol, 64) + there + here
        return macs + b"\x86\xdd" + head + segment
    length = 20 + len(segment)
    head = packed("!BBHHHBBH", 0x45, 0, length, 1, 0x4000, 64, packet.protocol, 0) + there[12:] + here[12:]
    return macs + b"\x08\x00" + head + segment
