"""Keep what the kernel is told about policy equal to rules, endpoints and identities.

In the walk: sources give policies, identity.select gives selections; datapath.write puts the tables
written here into maps. Work is that of the change: an identity that comes or goes is a row per policy
that names it; a policy object that changes concerns the endpoints it selects; endpoints with the same
rules share one policy.

Make before break. A changed policy is a new policy: its entries and peers are put before the
endpoint's row names it, and the old one's rows are deleted after. Who writes the tables into the
kernel keeps that order between tables: puts of policy_entries, policy_peers, ipcache,
endpoint_policies; then deletions in the reverse order.

The event loop has its turn between groups of endpoints, and between rows: that order holds for each row,
so whoever reads the tables in between finds what a reader may find.

Nothing is written before all that is read is ready: after a restart the kernel goes on with what it
has until the whole new truth is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any, Literal

from podwire.base.aio import in_slices
from podwire.model.cluster import OWN
from podwire.model.decide import named_ports
from podwire.model.implied import ALWAYS, LOCALHOST, restricts
from podwire.model.labels import Labels
from podwire.model.rule import Direction, Rule
from podwire.model.selector import Selector
from podwire.policy import resolve
from podwire.policy.live import Difference, Group, Live
from podwire.policy.named import Names, PodKey, names_others, pods_of
from podwire.policy.resolve import Collision, NamedPorts, Policy, Prepared, Steps
from podwire.policy.rules import RuleNumbers
from podwire.policy.subjects import PolicyKey, Subjects
from podwire.policy.written import Written
from podwire.state.members import Moved
from podwire.state.table import Batch, Change, Watch, until_ready
from podwire.state.tables import ContainerPort, EndpointPolicyRow, EndpointRow, ProgressRow
from podwire.state.writers import COMPUTE

STAGE, BEFORE = "policy.compute", "identity.select"


class Compute:
    """Keeps tables rules, policy_entries, policy_peers and endpoint_policies."""

    def __init__(self, tables: Written, *, enable: Literal["default", "always", "never"] = "default") -> None:
        self.tables = tables
        self.revision = 1  # of the policies, as Cilium counts
        self._enable = enable
        self._numbers = RuleNumbers(tables.rules)
        self._always = resolve.prepare(ALWAYS, lambda clause: 0)
        self._localhost = resolve.prepare(LOCALHOST, self._number_of(LOCALHOST))
        for clause in LOCALHOST.clauses:  # what holds without being written has rows as well
            self._numbers.of_clause(LOCALHOST, clause)
        self._subjects = Subjects()
        self._postponed: dict[PolicyKey, Change[Any]] = {}
        self._groups: dict[tuple[Labels, tuple[ContainerPort, ...]], Group] = {}
        self._group_of: dict[int, Group] = {}
        self._live: dict[bytes, Live] = {}
        self._by_number: dict[int, Live] = {}
        self._using: dict[Selector, dict[int, Live]] = {}  # selector → number → policy
        self._names = Names()
        self._stale: set[int] = set()  # endpoints whose row is to be written
        self._whole = False  # the first version of the policies is whole
        self._meanwhile = tables.selections.changes()
        self._taken = 0  # revision of table policies that is in force

    async def run(self) -> None:
        """Until cancelled."""
        read = self.reads()
        await until_ready(*read[:4])
        if names_others(self.tables.policies):
            await until_ready(self.tables.remote_endpoints)
        with Watch(self.tables.policies, self.tables.progress) as earlier:
            while not self._selected_all():  # an endpoint must not be without rules, even for a moment
                await earlier.next()
        with Watch(*read) as watch:
            while True:
                await in_slices(self.steps(*await watch.next()))

    def reads(self) -> tuple[Any, ...]:
        """The tables whose changes `step` takes, in its order."""
        tables = self.tables
        return (
            tables.endpoints,
            tables.policies,
            tables.selections,
            tables.pods,
            tables.remote_endpoints,
            tables.progress,
        )

    def step(self, *batches: Batch[Any]) -> None:
        """Take in what changed, and put what follows from it."""
        for _ in self.steps(*batches):
            pass

    def steps(self, *batches: Batch[Any]) -> Iterator[None]:
        """`step`, in pieces: after each one, others may have their turn."""
        tables = self.tables
        endpoints, policies, selections, pods, remote, _ = batches
        select_progress = tables.progress.get(BEFORE)
        reached = select_progress.identities if select_progress else 0
        self._meanwhile.forget()
        out = Difference()
        affected = yield from self._take_policies(policies)
        left: list[int] = []
        for change in endpoints:
            affected |= self._take_endpoint(change, left)
            yield
        renamed = yield from self._take_names(endpoints, pods, remote)
        for group in affected:
            yield from self._assign(group, out)
        yield from self._reselect(selections, out)
        yield from self._rename(renamed, out)
        # Who moved while others had their turn: of that no policy may have seen but a part.
        for _ in self._reselect(self._meanwhile.take(), out):
            pass
        yield from self._write(out, left)
        own = all(batch.ready for batch in batches[:4])
        if own and not self._whole and (remote.ready or not names_others(tables.policies)):
            self._whole = True
            for table in (tables.rules, tables.policy_entries, tables.policy_peers, tables.endpoint_policies):
                table.mark_ready(COMPUTE)
        tables.progress.put(ProgressRow(STAGE, reached, self._taken))
        if tables.endpoint_policies.ready:
            tables.progress.mark_ready(COMPUTE)

    # --- what changed

    def _take_policies(self, batch: Batch[Any]) -> Steps[set[Group]]:
        """Groups of endpoints that some changed rule selects.

        Rules count once identity.select knows whom they select; until then they wait, whole.
        """
        for change in batch:
            key: Any = change.key
            earlier = self._postponed.get(key)
            self._postponed[key] = Change(key, earlier.old if earlier else change.old, change.new)
        if not self._postponed or not self._selected_all():
            return set()
        self._taken = self.tables.policies.revision
        changes, self._postponed = self._postponed, {}
        affected: set[Group] = set()
        for key, change in changes.items():
            rules = change.new.rules if change.new is not None else ()
            after = tuple(resolve.prepare(rule, self._number_of(rule)) for rule in rules)
            before = self._subjects.put(key, after)
            for prepared in before:
                self._numbers.release(prepared.rule)
            affected |= self._subjects.groups_of({one.subject for one in (*before, *after)})
            yield
        self.revision = 1 + self._taken  # one more for each object, however many came at once
        self._stale |= self._group_of.keys()  # all of them realize the new revision
        return affected

    def _selected_all(self) -> bool:
        """Whether identity.select knows whom all rules select."""
        progress = self.tables.progress.get(BEFORE)
        return progress is not None and progress.policies >= self.tables.policies.revision

    def _number_of(self, rule: Rule) -> Any:
        return lambda clause: self._numbers.of_clause(rule, clause)

    def _take_endpoint(self, change: Change[EndpointRow], left: list[int]) -> set[Group]:
        """Put an endpoint into its group. `left` gets those that are gone."""
        row = change.new
        key = (row.labels, row.ports) if row is not None and row.labels else None
        number: Any = change.key
        known = self._group_of.get(number)
        if key is not None and known is not None and (known.labels, known.ports) == key:
            return set()
        affected: set[Group] = set()
        if known is not None:
            known.endpoints.discard(number)
            del self._group_of[number]
            affected.add(known)
        if key is None:
            left.append(number)
        else:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group(*key)
                self._subjects.add(group)
            group.endpoints.add(number)
            self._group_of[number] = group
            affected.add(group)
        return affected

    def _take_names(self, endpoints: Batch[Any], pods: Batch[Any], remote: Batch[Any]) -> Steps[set[int]]:
        """Identities whose named ports are others now."""
        changed: set[int] = set()
        for key in pods_of(endpoints, pods, remote):
            here = self.tables.pods.get(key[1:]) if key[0] == OWN else None
            pod = here or self.tables.remote_endpoints.get(key)
            number = self._identity_of(key)
            ports = pod.ports if pod is not None else ()
            changed |= self._names.put(key, number, ports) if ports else self._names.remove(key)
            yield
        return changed

    def _identity_of(self, key: PodKey) -> int:
        cluster, *pod = key
        for endpoint in self.tables.endpoints.by("pod", tuple(pod)) if cluster == OWN else ():
            return endpoint.identity
        remote = self.tables.remote_endpoints.get(key)
        return remote.identity if remote is not None else 0

    # --- what follows

    def _rules_for(self, labels: Labels) -> tuple[Prepared, ...]:
        if self._enable == "never":
            return ()
        found = self._subjects.rules_for(labels)
        if self._enable == "always":
            found.append(self._always)
        return resolve.obeyed(found, self._localhost)

    def _assign(self, group: Group, out: Difference) -> Iterator[None]:
        """Give a group the policy its rules make now."""
        yield
        rules = self._rules_for(group.labels) if group.endpoints else ()
        denied_by = {
            direction: tuple(sorted({one.rule.origin for one in rules if restricts(one.rule, direction)}))
            for direction in Direction
        }
        defaults = {
            direction: self._numbers.of_default_deny(origins, direction)
            for direction, origins in denied_by.items()
            if origins
        }
        for direction, origins in group.denied_by.items():
            if origins:
                self._numbers.release_default_deny(origins, direction)
        group.denied_by = denied_by
        own = named_ports((port.name, port.protocol, port.port) for port in group.ports)
        live = (yield from self._policy(rules, own, defaults, out)) if rules else None
        if live is not group.live:
            self._leave(group, out)
            group.live = live
        if live is not None:
            live.users.add(group)
        self._stale |= group.endpoints
        if not group.endpoints and self._groups.pop((group.labels, group.ports), None) is not None:
            self._subjects.discard(group)

    def _leave(self, group: Group, out: Difference) -> None:
        if group.live is not None:
            group.live.users.discard(group)
            if not group.live.users:
                out.no_policies.append(group.live)

    def _policy(
        self,
        rules: tuple[Prepared, ...],
        own: NamedPorts,
        defaults: dict[Direction, int],
        out: Difference,
        least_salt: int = 0,
    ) -> Steps[Live]:
        """The policy of these rules: the one there is, or a new one with all its rows in `out`."""
        content = resolve.policy_content(rules, own, defaults)
        known = self._live.get(content)
        if known is not None and known.policy.salt >= least_salt:
            return known
        for salt in range(least_salt, least_salt + 256):
            live = Live(Policy(rules, own, defaults, salt=salt))
            if live.policy.number in self._by_number:
                continue
            try:
                written = yield from live.begin(self.tables.selections.members, self._named_all(live))
            except Collision:
                continue
            break
        else:
            raise AssertionError("256 numbers in a row are taken")
        out.entries += written.entries
        out.begun += written.begun
        self._live[content] = self._by_number[live.policy.number] = live
        for selector in live.selectors():
            self._using.setdefault(selector, {})[live.policy.number] = live
        return live

    def _named_all(self, live: Live) -> dict[int, NamedPorts]:
        if not any(half.side.names for half in live.halves.values()):
            return {}
        return {identity: self._names.of(identity) for identity in self._names.identities()}

    def _reselect(self, batch: Batch[Any], out: Difference) -> Iterator[None]:
        """Identities came to or went from selections.

        A selection that is gone is one that no rule uses; a policy that still does is about to be
        replaced, and keeps its peers until then.
        """
        moved: dict[Live, dict[Selector, Set[int] | None]] = {}
        selections = self.tables.selections
        for change in batch:
            assert isinstance(change, Moved)
            selector: Any = change.key
            if selector in selections:
                for live in self._using.get(selector, {}).values():
                    moved.setdefault(live, {})[selector] = change.members
        for live, selectors in moved.items():
            if live.users:
                steps = live.reselect(selectors, selections.members, self._names.of, out)
                yield from self._or_again(live, out, steps)

    def _rename(self, identities: set[int], out: Difference) -> Iterator[None]:
        if identities:
            for live in list(self._live.values()):
                if live.users:
                    yield from self._or_again(live, out, live.rename(identities, self._names.of, out))

    def _or_again(self, live: Live, out: Difference, update: Iterator[None]) -> Iterator[None]:
        """Update a policy in place; if two of its classes collide, replace it under another number."""
        try:
            yield from update
        except Collision:
            old = live.policy
            new = yield from self._policy(old.rules, old.own, old.default_rules, out, old.salt + 1)
            for group in list(live.users):
                group.live = new
                new.users.add(group)
                self._stale |= group.endpoints
            live.users.clear()
            out.no_policies.append(live)

    # --- rows

    def _write(self, out: Difference, left: list[int]) -> Iterator[None]:
        """Put what is new, switch endpoints over, delete what is old."""
        tables = self.tables
        for entry in out.entries:
            tables.policy_entries.put(entry)
            yield
        for begun in out.begun:
            tables.policy_peers.begin(*begun)
        for peer in out.peers:
            tables.policy_peers.put(peer)
            yield
        for number in self._stale & self._group_of.keys():
            tables.endpoint_policies.put(self._row(number, self._group_of[number]))
            yield
        self._stale.clear()
        for number in left:
            tables.endpoint_policies.delete(number)
        yield from self._delete(out)

    def _delete(self, out: Difference) -> Iterator[None]:
        """What nothing uses any more, now that nobody is told of it any more."""
        for policy, direction, identity in out.no_peers:
            live = self._by_number.get(policy)
            if live is not None and not live.halves[direction].holds(identity):
                self.tables.policy_peers.delete((policy, direction, identity))
            yield
        for policy, direction, peer_class in out.no_classes:
            live = self._by_number.get(policy)
            if live is not None and not live.halves[direction].wrote(peer_class):
                self._delete_entries("class", (policy, direction, peer_class))
            yield
        for live in out.no_policies:
            if not live.users:
                self._remove(live)
            yield

    def _row(self, endpoint: int, group: Group) -> EndpointPolicyRow:
        if group.live is None:
            return EndpointPolicyRow(endpoint, 0, False, False, self.revision)
        policy = group.live.policy
        ingress, egress = policy.enforced(Direction.INGRESS), policy.enforced(Direction.EGRESS)
        return EndpointPolicyRow(endpoint, policy.number, ingress, egress, self.revision)

    def _remove(self, live: Live) -> None:
        number = live.policy.number
        if self._by_number.pop(number, None) is None:
            return
        if self._live.get(live.policy.content) is live:
            del self._live[live.policy.content]
        for selector in live.selectors():
            using = self._using.get(selector, {})
            using.pop(number, None)
            if not using:
                self._using.pop(selector, None)
        for direction in live.halves:
            self.tables.policy_peers.end(number, direction)
        self._delete_entries("policy", number)

    def _delete_entries(self, index: str, term: Any) -> None:
        for row in self.tables.policy_entries.by(index, term):
            self.tables.policy_entries.delete(
                (row.policy, row.peer_class, row.direction, row.protocol, row.port, row.port_bits)
            )
