"""What could not be written, as the table that people are told from: policy_failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from podwire.abi.enums import EndpointFlags
from podwire.base.errors import PodwireError
from podwire.datapath import missing
from podwire.datapath.mirror import Mirror
from podwire.model.rule import Origin
from podwire.state.table import Table
from podwire.state.tables import EndpointFailureRow, PolicyFailureRow
from podwire.state.views import ReadTables
from podwire.state.writers import FAILURES

POLICY = (missing.POLICY, missing.PEERS)
ADDRESSES = (missing.ADDRESS, missing.PREFIX)  # their rows are prefixes of table ipcache
UNKNOWN = {missing.PEERS_MISSING: "peers", missing.ADDRESSES_MISSING: "addresses"}
QUARANTINED = "it talks to nobody: a row that is wrong could neither be replaced nor removed"
CLOSED = "it talks to nobody: what decides about all endpoints is not whole in the kernel: {}"
OUTDATED = "it is kept on a policy that was not asked about identities that came since"
Mirrors = Mapping[str, Mirror]


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def policy_failures(self) -> Table[PolicyFailureRow]: ...

    @property
    def endpoint_failures(self) -> Table[EndpointFailureRow]: ...


def broken_policies(mirrors: Mirrors) -> set[int]:
    """Policies of which an entry or a peer is not in the kernel."""
    return {policy for policy, _ in _failed_policies(mirrors)}


def _failed_policies(mirrors: Mirrors) -> Iterator[tuple[int, PodwireError]]:
    for name in POLICY:
        for row, error in mirrors[name].failed_rows().items():
            if isinstance(row, tuple):
                yield int(row[0]), error  # both keys begin with the policy


def unknown_identities(tables: Written, mirrors: Mirrors) -> dict[int, str]:
    """Identities that the kernel does not know some address of: policies do not hold for it."""
    unknown = {}
    for name in ADDRESSES:
        for prefix, error in mirrors[name].failed_rows().items():
            if (row := tables.ipcache.get(prefix)) is not None:
                unknown[row.identity] = str(error)
    return unknown


def tell(tables: Written, mirrors: Mirrors) -> None:
    """Table policy_failures: what whoever applied a policy should be told of it."""
    failed: dict[int, list[str]] = {}
    for policy, error in _failed_policies(mirrors):
        failed.setdefault(policy, []).append(str(error))
    unknown = unknown_identities(tables, mirrors)
    for policy, direction in tables.policy_peers.sets() if unknown else ():
        named = tables.policy_peers.of(policy, direction)
        failed.setdefault(policy, []).extend(why for one, why in unknown.items() if one in named)
    tables.policy_failures.replace(
        PolicyFailureRow(policy, len(errors), errors[0], _origins(tables, policy))
        for policy, errors in failed.items()
        if errors
    )


def tell_endpoints(tables: Written, mirrors: Mirrors, flagged: Mapping[int, EndpointFlags]) -> None:
    """Table endpoint_failures: pods that are denied what the kernel does not know, and why."""
    shortage = missing.of(mirrors) if flagged else missing.Missing()
    why, closed = shortage.why, CLOSED.format(shortage.closed) if shortage.closed else QUARANTINED
    tables.endpoint_failures.replace(
        EndpointFailureRow(
            endpoint,
            tuple(name for flag, name in UNKNOWN.items() if flag in flags),
            closed
            if missing.QUARANTINED in flags
            else next((why[flag] for flag in UNKNOWN if flag in flags and flag in why), OUTDATED),
        )
        for endpoint, flags in flagged.items()
    )


def mark_ready(tables: Written) -> None:
    """All that could not be written is told."""
    tables.policy_failures.mark_ready(FAILURES)
    tables.endpoint_failures.mark_ready(FAILURES)


def _origins(tables: Written, policy: int) -> tuple[Origin, ...]:
    """The objects that a policy is made of."""
    rules = {entry.rule for entry in tables.policy_entries.by("policy", policy)}
    rows = (tables.rules.get(rule) for rule in rules)
    return tuple(sorted({origin for row in rows if row is not None for origin in row.origins}))
