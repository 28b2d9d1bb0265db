"""Tables as text that people can read in a golden file: names instead of numbers.

Numbers that are hashes (policies, classes, rules) would change with everything; what they stand for
does not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from podwire.abi.enums import PolicyVerdict
from podwire.base.addresses import join
from podwire.model import identity as numbers
from podwire.model import protocol as protocols
from podwire.model.labels import CLUSTER, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT, Labels, split
from podwire.model.rule import Direction
from podwire.state.tables import EntryRow, RuleRow, Tables

Line = Sequence[str]
VERDICTS = {
    PolicyVerdict.ALLOW: "allow",
    PolicyVerdict.DENY: "deny",
    PolicyVerdict.DEFAULT_DENY: "default deny",
}
LEFT_OUT = (NAMESPACE, SERVICE_ACCOUNT, CLUSTER)


def columns(lines: Iterable[Line]) -> str:
    """Lines with their columns below each other, two spaces between."""
    rows = [list(line) for line in lines]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    return "".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() + "\n"
        for row in rows
    )


def labels(found: Labels) -> str:
    """``prod/app=web``, ``reserved:host``, ``cidr:10.0.0.0/8``: what tells an identity from others."""
    namespace, own = "", []
    for source, key, value in map(split, found):
        if (source, key) == ("k8s", NAMESPACE):
            namespace = f"{value}/"
        elif source == "k8s" and key not in LEFT_OUT and not key.startswith(NAMESPACE_LABELS):
            own.append(f"{key}={value}")
        elif source in ("cidr", "reserved"):
            own.append(f"{source}:{key}")
    return namespace + ",".join(own)


def identity(tables: Tables, number: int) -> str:
    """A reserved name, or the labels; never a number, which would be another with other labels."""
    row = tables.identities.get(number)
    if number in numbers.RESERVED_NAMES or row is None:
        return numbers.name(number)
    return labels(row.labels)


def endpoint(tables: Tables, number: int) -> str:
    row = tables.endpoints.get(number)
    return row.pod if row is not None else f"endpoint {number}"


def because(tables: Tables, number: int) -> str:
    """The rule behind a number: ``default/web ingress[0]``, ``default/web (default deny)``."""
    row = tables.rules.get(number)
    if row is None:
        return "-" if number == 0 else f"rule {number}"
    return _rule(row)


def _rule(row: RuleRow) -> str:
    names = ", ".join(map(str, row.origins))
    return f"{names} (default deny)" if row.default_deny else f"{names} {row.clause}"


def ports(row: EntryRow) -> str:
    """``80/TCP``, ``80-87/TCP``, ``TCP``, ``any``; ``8/ICMP`` for a type."""
    if not row.protocol:
        return "any"
    protocol = protocols.name(row.protocol)
    if not row.port_bits:
        return protocol
    first, last = row.port, row.port | (1 << (16 - row.port_bits)) - 1
    if row.protocol in (1, 58):
        first, last = first >> 8, last >> 8
    return f"{first}/{protocol}" if first == last else f"{first}-{last}/{protocol}"


def _entries(tables: Tables) -> Iterable[Line]:
    yield "ENDPOINT", "DIRECTION", "PEERS", "PORT", "VERDICT", "BECAUSE"
    members: dict[tuple[int, Direction, int], list[str]] = {}
    for peer in tables.policy_peers:
        place = (peer.policy, peer.direction, peer.peer_class)
        members.setdefault(place, []).append(identity(tables, peer.identity))
    obeying: dict[int, list[str]] = {}
    for row in tables.endpoint_policies:
        obeying.setdefault(row.policy, []).append(endpoint(tables, row.endpoint))
    found = []
    for entry in tables.policy_entries:
        place = (entry.policy, entry.direction, entry.peer_class)
        who = "; ".join(sorted(members.get(place, []))) if entry.peer_class else "(anyone else)"
        order = (entry.protocol, entry.port_bits, entry.port)
        line = (
            ", ".join(sorted(obeying.get(entry.policy, []))),
            entry.direction.word,
            who,
            ports(entry),
            VERDICTS[PolicyVerdict(entry.verdict)],
            because(tables, entry.rule),
        )
        found.append((line[0], entry.direction, not entry.peer_class, who, order, line))
    yield from (line for *_, line in sorted(found))


def _endpoint_policies(tables: Tables) -> Iterable[Line]:
    yield "ENDPOINT", "INGRESS", "EGRESS"
    for row in sorted(tables.endpoint_policies, key=lambda row: row.endpoint):
        yield (
            endpoint(tables, row.endpoint),
            "enforced" if row.enforce_ingress else "open",
            "enforced" if row.enforce_egress else "open",
        )


def _identities(tables: Tables) -> Iterable[Line]:
    yield "IDENTITY", "SOURCE"
    found = [row for row in tables.identities if row.source != "reserved"]
    yield from sorted((identity(tables, row.number), row.source) for row in found)


def _selections(tables: Tables) -> Iterable[Line]:
    yield "SELECTOR", "USERS", "IDENTITIES"
    for row in sorted(tables.selections, key=lambda row: str(row.selector)):
        selected = "; ".join(sorted(identity(tables, number) for number in row.identities))
        yield str(row.selector), str(row.users), selected or "(nobody)"


def _ipcache(tables: Tables) -> Iterable[Line]:
    yield "PREFIX", "IDENTITY", "SOURCE", "TUNNEL"
    for row in sorted(tables.ipcache, key=lambda row: _network(row.prefix)):
        yield row.prefix, identity(tables, row.identity), row.source, row.tunnel or "-"


def _network(prefix: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(prefix)
    return network.version, int(network.network_address), network.prefixlen


def _policies(tables: Tables) -> Iterable[Line]:
    yield "POLICY", "RULES", "ERROR"
    for row in sorted(tables.policies, key=lambda row: (row.namespace, row.name, row.kind)):
        yield f"{row.kind} {row.namespace}/{row.name}", str(len(row.rules)), row.error or "-"


def _endpoints(tables: Tables) -> Iterable[Line]:
    yield "ENDPOINT", "POD", "ADDRESSES", "IDENTITY"
    for row in sorted(tables.endpoints, key=lambda row: row.id):
        addresses = ", ".join(row.addresses)
        yield str(row.id), f"{row.namespace}/{row.pod}", addresses, identity(tables, row.identity)


def _rules(tables: Tables) -> Iterable[Line]:
    yield "RULE", "DIRECTION"
    yield from sorted((_rule(row), row.direction.word) for row in tables.rules)


def _frontends(tables: Tables) -> Iterable[Line]:
    yield "FRONTEND", "SERVICE", "TYPE", "BACKENDS"
    backends = {row.id: join(row.address, row.port) for row in tables.backends}
    for row in sorted(tables.frontends, key=lambda row: (row.address, row.port, row.protocol)):
        place = f"{join(row.address, row.port)}/{protocols.name(row.protocol)}"
        chosen = ", ".join(backends[number] for number in row.backends) or "(none)"
        yield place, f"{row.namespace}/{row.service}", row.type, chosen


TABLES: dict[str, Callable[[Tables], Iterable[Line]]] = {
    "policies": _policies,
    "endpoints": _endpoints,
    "identities": _identities,
    "selections": _selections,
    "ipcache": _ipcache,
    "rules": _rules,
    "endpoint_policies": _endpoint_policies,
    "policy_entries": _entries,
    "frontends": _frontends,
}


def table(tables: Tables, name: str) -> str:
    """One table as text; KeyError if it cannot be shown."""
    return columns(TABLES[name](tables))
