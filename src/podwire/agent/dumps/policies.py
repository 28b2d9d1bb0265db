"""Entries of stage two of policy, with who is in their class by stage one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from podwire.abi import dtypes
from podwire.abi.enums import POLICY_PREFIX_PORT, POLICY_PREFIX_PROTOCOL, PolicyVerdict
from podwire.agent.dumps.names import Names
from podwire.agent.dumps.order import sorted_by
from podwire.agent.dumps.wanted import Mask, Wanted
from podwire.datapath import rows
from podwire.datapath.maps import Maps
from podwire.model import protocol as protocols
from podwire.model.rule import Direction
from podwire.state.views import ReadTables

Rows = list[dict[str, Any]]
TEXTS = 2048  # rows and names of peers that become text at once


def policies(maps: Maps, tables: ReadTables, wanted: Wanted) -> Iterator[Rows]:
    """By policy, direction, class and port. In memory as numbers, which the maps bound."""
    numbers = wanted.endpoints
    obeying: dict[int, list[int]] = {}
    for obeyed in tables.endpoint_policies:
        if numbers is None or obeyed.endpoint in numbers:
            obeying.setdefault(obeyed.policy, []).append(obeyed.endpoint)
    keys, values = maps["podwire_policy"].snapshot()
    key, entry = np.frombuffer(keys, dtypes.POLICY_KEY), np.frombuffer(values, dtypes.POLICY_ENTRY)
    chosen = _matching(key, wanted)
    if numbers is not None:
        chosen &= np.isin(key["policy"], list(obeying))
    key, entry = key[chosen], entry[chosen]
    columns = ("policy", "direction", "peer_class", "protocol", "port", "prefix_length")
    members, names = Members(maps, np.unique(key["policy"])), Names(tables)
    found: Rows = []
    texts = 0
    for index in sorted_by(*(key[one] for one in columns)).tolist():
        row = _row(key[index], entry[index], members, names)
        row["endpoints"] = sorted(obeying.get(row["policy"], ()))
        found.append(row)
        texts += 1 + len(row["peers"])
        if texts >= TEXTS:
            yield found
            found, texts = [], 0
    yield found


def _matching(key: Any, wanted: Wanted) -> Mask:
    """An entry for any protocol is one for the wanted one, and so are ports by their prefix."""
    found: Mask = np.ones(len(key), dtype=bool)
    if wanted.protocol is not None:
        found &= (key["prefix_length"] < POLICY_PREFIX_PROTOCOL) | (key["protocol"] == wanted.protocol)
    if wanted.port is not None:
        named = np.clip(key["prefix_length"].astype("i8") - POLICY_PREFIX_PROTOCOL, 0, 16)
        differ = (key["port"].astype("i8") ^ wanted.port) >> (16 - named)
        # Of protocols without ports the same bytes hold a type and a code.
        ported = np.isin(key["protocol"], protocols.WITH_PORTS) | (named == 0)
        found &= (differ == 0) & ported
    return found


class Members:
    """Identities by their class: sorted numbers, of the policies that are shown."""

    def __init__(self, maps: Maps, shown: Any) -> None:
        parts = [_members(keys, values, shown) for keys, values in maps["podwire_policy_peers"].blocks()] or [
            np.zeros((4, 0), dtype="u4")
        ]
        policy, direction, number, peer = np.concatenate(parts, axis=1)
        order = sorted_by(policy, direction, number, peer)
        self._peers = peer[order]
        self._places = policy[order], direction[order], number[order]

    def of(self, policy: int, direction: int, number: int) -> list[int]:
        """Ascending."""
        first, last = 0, len(self._peers)
        for column, wanted in zip(self._places, (policy, direction, number), strict=True):
            part = column[first:last]
            last = first + int(np.searchsorted(part, np.uint32(wanted), "right"))
            first += int(np.searchsorted(part, np.uint32(wanted), "left"))
        found: list[int] = self._peers[first:last].tolist()
        return found


def _members(keys: bytes, values: bytes, shown: Any) -> Any:
    """(policy, direction, class, identity) of those who are in a class."""
    key = np.frombuffer(keys, dtypes.POLICY_PEERS_KEY)
    classes = np.frombuffer(values, dtype="=u4").reshape(-1, rows.PEER_SPAN)
    row, place = np.nonzero((classes != 0) & np.isin(key["policy"], shown)[:, None])
    peers = key["block"][row] * np.uint32(rows.PEER_SPAN) + place.astype("u4")
    return np.stack([key["policy"][row], key["direction"][row].astype("u4"), classes[row, place], peers])


def _row(key: Any, entry: Any, members: Members, names: Names) -> dict[str, Any]:
    policy, direction, peer_class = int(key["policy"]), int(key["direction"]), int(key["peer_class"])
    peers = [names.named(peer) for peer in members.of(policy, direction, peer_class)]
    return {
        "policy": policy,
        "endpoints": [],
        "direction": Direction(direction).word,
        "peers": peers if peer_class else ["any other"],
        "port": _ports(int(key["prefix_length"]), int(key["protocol"]), int(key["port"])),
        "verdict": PolicyVerdict(int(entry["verdict"])).name.lower().replace("_", " "),
        "proxy_port": int(entry["proxy_port"]),
        "because": names.because(int(entry["rule"])),
        "rule": int(entry["rule"]),
    }


def _ports(prefix_length: int, protocol: int, port: int) -> str:
    if prefix_length < POLICY_PREFIX_PROTOCOL:
        return "any"
    if prefix_length == POLICY_PREFIX_PROTOCOL:
        return f"any/{protocols.or_any(protocol)}"
    span = 1 << (POLICY_PREFIX_PORT - prefix_length)
    numbers = str(port) if span == 1 else f"{port}-{port + span - 1}"
    if protocol not in protocols.WITH_PORTS:
        numbers = str(port >> 8) if span > 1 else f"{port >> 8}.{port & 0xFF}"  # type, or type and code
    return f"{numbers}/{protocols.or_any(protocol)}"
