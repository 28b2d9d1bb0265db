"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy to rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model.labels import Labels, canonical, label
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Prefix, Rule
from podwire.model.selector import EVERYTHING, Selector
from podwire.policy.parse import peers, ports
from podwire.policy.parse.read import boolean, items, known, origin, show, string, take
from podwire.policy.parse.selectors import peer, subject

SPEC = frozenset(
    {
        "endpointSelector", "ingress", "ingressDeny", "egress", "egressDeny", "labels",
        "enableDefaultDeny", "description", "log",
    }
)  # fmt: skip
SPEC_NOT_YET = {"nodeSelector": "host policies are not supported yet"}

# Sections of a spec, and how the members of their entries begin.
SECTIONS = {
    "ingress": (Direction.INGRESS, Effect.ALLOW, "from"),
    "ingressDeny": (Direction.INGRESS, Effect.DENY, "from"),
    "egress": (Direction.EGRESS, Effect.ALLOW, "to"),
    "egressDeny": (Direction.EGRESS, Effect.DENY, "to"),
}
NOT_YET = {
    "fromGroups": "groups of cloud providers are not supported yet",
    "toGroups": "groups of cloud providers are not supported yet",
    "fromNodes": "selecting nodes by label is not supported yet",
    "toNodes": "selecting nodes by label is not supported yet",
    "toServices": "selecting services is not supported yet",
    "toFQDNs": "DNS names are not supported yet",
    "authentication": "mutual authentication is not supported yet",
    "fromRequires": "was removed from the language; use fromEndpoints",
    "toRequires": "was removed from the language; use toEndpoints",
}
L3_MEMBERS = ("Endpoints", "CIDR", "CIDRSet", "Entities")
LOG_LENGTH = 32


def parse(policy: Any, cluster: str) -> tuple[Rule, ...]:
    """Rules of spec and specs. Raises InvalidObject."""
    read = take(policy, "")
    who = origin(read, namespaced=read["kind"] == "CiliumNetworkPolicy")
    known(read, "", frozenset({"apiVersion", "kind", "metadata", "spec", "specs", "status"}))
    specs = [] if read.get("spec") is None else [(read["spec"], "spec")]
    specs += list(items(read.get("specs"), "specs"))
    if not specs:
        raise InvalidObject("spec", "is missing", hint="a policy has a spec, or a list of them in specs")
    return tuple(_rule(spec, path, index, who, cluster) for index, (spec, path) in enumerate(specs))


def _rule(value: Any, path: str, index: int, who: Origin, cluster: str) -> Rule:
    read = known(value, path, SPEC, SPEC_NOT_YET)
    if read.get("endpointSelector") is None:
        raise InvalidObject(f"{path}.endpointSelector", "is missing", hint="{} selects all endpoints")
    clauses: list[Clause] = []
    prefixes: list[Prefix] = []
    present = {direction: False for direction in Direction}
    for section, (direction, effect, _) in SECTIONS.items():
        for number, (entry, at) in enumerate(items(read.get(section), f"{path}.{section}")):
            present[direction] = True
            clause = _Entry(entry, at, section, who.namespace, cluster)
            clauses.append(Clause(direction, effect, number, clause.peers, clause.ports, at))
            prefixes += clause.prefixes
    if not any(present.values()):
        raise InvalidObject(path, f"has no rules: one of {', '.join(SECTIONS)} is needed")
    deny = _default_deny(read.get("enableDefaultDeny"), f"{path}.enableDefaultDeny", present)
    return Rule(
        origin=who,
        index=index,
        subject=subject(read["endpointSelector"], f"{path}.endpointSelector", who.namespace),
        clauses=tuple(clauses),
        default_deny_ingress=deny[Direction.INGRESS],
        default_deny_egress=deny[Direction.EGRESS],
        labels=_labels(read.get("labels"), f"{path}.labels"),
        description=_text(read.get("description"), f"{path}.description"),
        log=_log(read.get("log"), f"{path}.log"),
        prefixes=tuple(dict.fromkeys(prefixes)),
    )


class _Entry:
    """One entry of a section: whom it is about, on which ports."""

    def __init__(self, value: Any, path: str, section: str, namespace: str, cluster: str) -> None:
        _, effect, side = SECTIONS[section]
        members = [side + name for name in L3_MEMBERS]
        deny = effect is Effect.DENY
        refused = {
            name: text for name, text in NOT_YET.items() if name.startswith(side) or name == "authentication"
        }
        if deny:
            for name in ("toFQDNs", "authentication"):
                if name in refused:
                    refused[name] = "is not possible in a deny rule"
        read = known(value, path, frozenset({*members, "toPorts", "icmps"}), refused)
        self.prefixes: list[Prefix] = []
        self._cluster = cluster
        self._namespace = namespace
        self.ports = self._ports(read, path, deny)
        self.peers = self._peers(read, path, members)

    def _ports(self, read: dict[str, Any], path: str, deny: bool) -> tuple[Ports, ...] | None:
        found = ports.cilium(read.get("toPorts"), f"{path}.toPorts", deny=deny)
        types = ports.icmps(read.get("icmps"), f"{path}.icmps")
        if found is not None and types is not None:
            raise InvalidObject(f"{path}.icmps", "cannot be combined with toPorts", hint="write two entries")
        return types if found is None else found

    def _peers(self, read: dict[str, Any], path: str, members: list[str]) -> tuple[Selector, ...] | None:
        readers: tuple[Callable[[Any, str], list[Selector]], ...] = (
            lambda one, at: [peer(one, at, self._namespace)],
            self._bare_prefix,
            self._prefix,
            lambda one, at: peers.entity(one, at, self._cluster),
        )
        given = [name for name in members if read.get(name) is not None]
        found: list[Selector] = []
        filled: list[str] = []
        for name, reader in zip(members, readers, strict=True):
            entries = list(items(read.get(name), f"{path}.{name}"))
            filled += [name] if entries else []
            for one, at in entries:
                found += reader(one, at)
        if len(filled) > 1:
            raise InvalidObject(
                path, f"{filled[0]} and {filled[1]} cannot be combined", hint="write two entries"
            )
        if EVERYTHING in found:
            return None
        if not given and self.ports is not None:
            return None  # whoever, on these ports
        return tuple(dict.fromkeys(found))  # an entry that says nothing at all means nobody

    def _prefix(self, value: Any, path: str) -> list[Selector]:
        one = peers.prefix(value, path)
        self.prefixes.append(one)
        return peers.prefix_selectors(one)

    def _bare_prefix(self, value: Any, path: str) -> list[Selector]:
        one = Prefix(peers.cidr(value, path, bare=True))
        self.prefixes.append(one)
        return peers.prefix_selectors(one)


def _default_deny(value: Any, path: str, present: dict[Direction, bool]) -> dict[Direction, bool]:
    """Per direction: what the policy says, else whether it has entries in that direction."""
    if value is None:
        return present
    read = known(value, path, frozenset(direction.word for direction in Direction))
    return {
        direction: present[direction]
        if read.get(direction.word) is None
        else boolean(read[direction.word], f"{path}.{direction.word}")
        for direction in Direction
    }


def _text(value: Any, path: str) -> str:
    return "" if value is None else string(value, path)


def _log(value: Any, path: str) -> str:
    if value is None:
        return ""
    text = _text(known(value, path, frozenset({"value"})).get("value"), f"{path}.value")
    if len(text) > LOG_LENGTH or not text.isprintable():
        raise InvalidObject(f"{path}.value", f"{show(text)} is not up to {LOG_LENGTH} printable characters")
    return text


def _labels(value: Any, path: str) -> Labels:
    """The rule's own labels: texts, or objects with key, value and source."""
    found = []
    for one, at in items(value, path):
        if isinstance(one, str):
            found.append(string(one, at))
            continue
        read = known(one, at, frozenset({"key", "value", "source"}))
        source = _text(read.get("source"), f"{at}.source") or "unspec"
        found.append(
            label(source, string(read.get("key"), f"{at}.key"), _text(read.get("value"), f"{at}.value"))
        )
    return canonical(found)
