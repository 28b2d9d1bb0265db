"""Pods coming and going on this node: addresses, plumbing, endpoint rows.

An attachment is answered when packets may flow: when the kernel has the endpoint's rows with its
identity and policy. It is all or nothing; the same container asked for again is no error. What cannot be
removed wholly is tried again, and keeps its addresses until then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

import msgspec

from podwire.agent.interface import EndpointRequest
from podwire.agent.labeling import Labeling
from podwire.agent.registry import Numbers, Registry
from podwire.base.addresses import exact
from podwire.base.aio import Turns, boundary, eventually, unbroken
from podwire.base.errors import Conflict, NotFound, StorageError, Unreachable
from podwire.datapath import conntrack
from podwire.datapath.endpoints import Attached, Plumbing
from podwire.datapath.maps import Maps
from podwire.datapath.write import Writer
from podwire.ipam.pools import Pools
from podwire.state.table import Batch, Table, Watch
from podwire.state.tables import EndpointRow
from podwire.state.views import ReadTables
from podwire.state.writers import ATTACHMENTS

log = logging.getLogger(__name__)

POD_KNOWN_WITHIN = 10.0  # s until the API has told of a pod that is to be attached
REALIZED_WITHIN = 10.0  # s until the kernel has its rows
GONE_WITHIN = 2.0
SAVE_AGAIN = 5.0
REMOVE_AGAIN = 5.0


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def endpoints(self) -> Table[EndpointRow]: ...


class Attachments:
    """The endpoints of this node, as they are made and unmade."""

    def __init__(
        self,
        tables: Written,
        plumbing: Plumbing,
        maps: Maps,
        writer: Writer,
        pools: Pools,
        registry: Registry,
        labeling: Labeling,
    ) -> None:
        self._tables = tables
        self._plumbing = plumbing
        self._maps = maps
        self._writer = writer
        self._pools = pools
        self._registry = registry
        self._labeling = labeling
        self._turns: Turns[str] = Turns()  # one call per container at a time
        self._claimed: dict[str, str] = {}  # address → pod that is being attached with it
        self._leaving: dict[int, EndpointRow] = {}  # gone from the table, not wholly from the kernel
        self._left = asyncio.Event()  # something of these could not be removed
        self._numbers = Numbers(tables.endpoints)

    def restore(self) -> int:
        """Endpoints of an earlier life whose devices are still there; how many."""
        present = self._plumbing.present()
        restored = 0
        for row in self._registry.load():
            if row.interface not in present:
                log.info("endpoint %d (%s/%s) is gone", row.id, row.namespace, row.pod)
                self._registry.forget(row.id)
                continue
            self._tables.endpoints.put(row)
            restored += 1
        self._remove_orphans({row.interface for row in self._tables.endpoints})
        self._numbers = Numbers(self._tables.endpoints)
        self._pools.restore(
            {
                address: f"{row.namespace}/{row.pod}"
                for row in self._tables.endpoints
                for address in row.addresses
            }
        )
        self._tables.endpoints.mark_ready(ATTACHMENTS)
        return restored

    def _remove_orphans(self, known: set[str]) -> None:
        """Devices that an agent was killed over, between making them and knowing them (or the reverse)."""
        for interface in self._plumbing.linked() - known:
            log.warning("device %s belongs to no endpoint; removing it", interface)
            self._plumbing.detach(interface)

    async def remember(self) -> None:
        """Keep the endpoint files equal to the table, until cancelled. A full disk is no reason to end.

        What is on its way to be ready changes again in a moment, and its file says already what only we know.
        """
        unsaved: dict[int, EndpointRow] = {}
        failed = False
        with Watch(self._tables.endpoints) as watch:
            while True:
                try:
                    async with asyncio.timeout(SAVE_AGAIN if failed else None):
                        (changes,) = await watch.next()
                except TimeoutError:
                    changes = Batch((), ready=True, revision=0)
                for change in changes:
                    if change.new is not None:
                        unsaved[change.new.id] = change.new
                    elif change.old is not None:
                        unsaved.pop(change.old.id, None)
                        self._registry.forget(change.old.id)
                due = [row for row in unsaved.values() if row.state == "ready"]
                # In a thread: a disk may take its time. Who forgets an endpoint meanwhile is heard after.
                saved = await unbroken(partial(self._save, due)) if due else set()
                failed = len(saved) < len(due)
                unsaved = {number: row for number, row in unsaved.items() if number not in saved}

    def _save(self, rows: list[EndpointRow]) -> set[int]:
        """The numbers of those that could be."""
        saved = set()
        for row in rows:
            try:
                self._registry.save(row)
            except StorageError as error:
                log.warning("%s; trying again in %g s", error, SAVE_AGAIN)
            else:
                saved.add(row.id)
        return saved

    async def settle(self) -> None:
        """Follow endpoints that changed their identity until the kernel has it, and say so.

        Also those whose new policy could not be written: they are not ready until it is.
        """
        tables = self._tables
        with Watch(tables.endpoints, tables.endpoint_policies, tables.policy_failures) as watch:
            while True:
                await watch.next()
                while waiting := [row for row in tables.endpoints if row.state != "ready" or self._kept(row)]:
                    for row in waiting:
                        self._advance(row.id)
                    await self._writer.round()  # what an endpoint waits for is written by it, or told to it

    def _kept(self, row: EndpointRow) -> bool:
        """Whether it is kept on the policy it had, because the one it is to obey is not whole."""
        obeyed = self._tables.endpoint_policies.get(row.id)
        failed = obeyed is not None and obeyed.policy in self._tables.policy_failures
        return failed and self._writer.realized(row.id) != obeyed

    async def attach(self, request: EndpointRequest) -> EndpointRow:
        """Plumb a pod and wait until it can talk."""
        async with self._turns.of(request.container_id):
            known = self._tables.endpoints.by("container", request.container_id)
            if not known:
                await self._finish(request.container_id)
            row = known[0] if known else await self._make(request)
            try:
                return await self._realized(row.id)
            except BaseException:
                if not known:
                    with boundary(f"undoing the attachment of endpoint {row.id}"):  # `finish` tries again
                        await self._remove(row)
                raise

    async def detach(self, container_id: str) -> None:
        """Undo `attach`; NotFound if there is no such endpoint."""
        async with self._turns.of(container_id):
            rows = self._tables.endpoints.by("container", container_id)
            for row in rows:
                await self._remove(row)
            if not await self._finish(container_id) and not rows:
                raise NotFound(f"no endpoint of container {container_id}")

    async def release(self, address: str) -> None:
        """Give an address back that no endpoint has; NotFound if nobody has it at all."""
        if owners := self._owners(address):
            raise Conflict(
                f"{address} is the address of pod {owners[0]}",
                hint="it is given back when the pod is detached",
            )
        self._pools.release(address)

    async def finish(self) -> None:
        """Try again to remove what could not be removed, until cancelled."""
        while True:
            await self._left.wait()
            self._left.clear()
            await asyncio.sleep(REMOVE_AGAIN)
            for container in {row.container_id for row in self._leaving.values()}:
                with boundary(f"removing what is left of container {container}"):
                    async with self._turns.of(container):
                        await self._finish(container)

    async def _finish(self, container_id: str) -> bool:
        """Remove what is left of a container; whether there was anything."""
        rows = [row for row in self._leaving.values() if row.container_id == container_id]
        for row in rows:
            await self._remove(row)
        return bool(rows)

    async def _make(self, request: EndpointRequest) -> EndpointRow:
        await self._pod_known(request)
        self._labeling.expect(request.namespace, request.pod)
        addresses = [address for address in (request.ipv4, request.ipv6) if address]
        with self._claim(request, addresses):
            attached = await self._plumb(request, addresses)
            row = self._row(request, attached)
            try:
                self._registry.save(row)
            except BaseException:
                await unbroken(partial(self._plumbing.detach, attached.interface))
                raise
            for address in addresses:
                self._pools.attached(address)
            self._tables.endpoints.put(row)
        self._labeling.update(row.id)
        return row

    @contextmanager
    def _claim(self, request: EndpointRequest, addresses: list[str]) -> Iterator[None]:
        """No other call may use these addresses until the table has them: plumbing takes its time."""
        for address in addresses:
            if owners := self._owners(address):
                raise Conflict(f"{address} is the address of pod {owners[0]}")
            if exact(address) in self._tables.local_addresses:
                raise Conflict(
                    f"{address} is an address of this node itself",
                    hint="`ip address` shows on which device; take it away, or give the pod another one",
                )
        self._claimed |= dict.fromkeys(addresses, f"{request.namespace}/{request.pod}")
        try:
            yield
        finally:
            for address in addresses:
                del self._claimed[address]

    def _owners(self, address: str) -> list[str]:
        """Pods that have an address, are being attached with it, or have not wholly gone."""
        leaving = (row for row in self._leaving.values() if address in row.addresses)
        rows = (*self._tables.endpoints.by("address", address), *leaving)
        claimed = self._claimed.get(address)
        return [f"{row.namespace}/{row.pod}" for row in rows] + ([claimed] if claimed else [])

    async def _plumb(self, request: EndpointRequest, addresses: list[str]) -> Attached:
        """In a thread; given up meanwhile, what it made is taken away again."""
        made: list[Attached] = []

        def work() -> None:
            if request.host_interface:
                adopted = Attached(request.host_interface, request.ifindex, request.mac, request.host_mac)
                self._plumbing.adopt(adopted, addresses)
                made.append(adopted)
                return
            owner, interface = request.container_id, request.interface
            made.append(self._plumbing.attach(request.netns, owner, addresses, interface=interface))

        try:
            await unbroken(work)
        except asyncio.CancelledError:
            for one in made:
                await unbroken(partial(self._plumbing.detach, one.interface))
            raise
        return made[0]

    def _row(self, request: EndpointRequest, attached: Attached) -> EndpointRow:
        return EndpointRow(
            id=self._numbers.next(),
            namespace=request.namespace,
            pod=request.pod,
            uid=request.uid,
            container_id=request.container_id,
            netns=request.netns,
            interface=attached.interface,
            ifindex=attached.ifindex,
            mac=attached.mac,
            host_mac=attached.host_mac,
            ipv4=request.ipv4,
            ipv6=request.ipv6,
            labels=(),
            identity=0,
            ports=(),
            state="waiting-for-identity",
            created=time.time(),
            pod_interface=request.interface,
        )

    async def _pod_known(self, request: EndpointRequest) -> None:
        def known() -> bool:
            pod = self._tables.pods.get((request.namespace, request.pod))
            return (
                pod is not None
                and (not request.uid or pod.uid == request.uid)
                and request.namespace in self._tables.namespaces
            )

        try:
            await eventually(known, timeout=POD_KNOWN_WITHIN, what="the pod", interval=0.005)
        except TimeoutError as error:
            raise Unreachable(
                f"the Kubernetes API has not told of pod {request.namespace}/{request.pod} "
                f"within {POD_KNOWN_WITHIN:g} s",
                hint="its labels decide its identity, so it cannot be attached without",
            ) from error

    async def _realized(self, number: int) -> EndpointRow:
        try:
            async with asyncio.timeout(REALIZED_WITHIN):
                while not self._advance(number):
                    await self._writer.round()
        except TimeoutError as error:
            row = self._tables.endpoints.get(number)
            raise Unreachable(
                f"endpoint {number} is still {row.state if row else 'unknown'} after {REALIZED_WITHIN:g} s",
                hint="`podwire status --verbose` shows what the agent waits for",
            ) from error
        row = self._tables.endpoints.get(number)
        if row is None:
            raise NotFound(f"endpoint {number} was removed while it was attached")
        return row

    def _advance(self, number: int) -> bool:
        """Move an endpoint to the state it is in; whether it is ready."""
        row = self._tables.endpoints.get(number)
        if row is None:
            return True
        state = self._state(row)
        if state != row.state:
            self._tables.endpoints.put(msgspec.structs.replace(row, state=state))
        return state == "ready"

    def _state(self, row: EndpointRow) -> str:
        if not row.identity:
            return "waiting-for-identity"
        obeyed = self._tables.endpoint_policies.get(row.id)
        realized = obeyed is not None and self._writer.realized(row.id) == obeyed
        return "ready" if realized else "regenerating"

    async def _remove(self, row: EndpointRow) -> None:
        """Each step can be taken again. What fails is left to `finish`."""
        self._leaving[row.id] = row
        self._tables.endpoints.delete(row.id)
        try:
            await self._forgotten(row)
            await unbroken(partial(self._plumbing.detach, row.interface))
            # Before another pod can get these addresses: it must not inherit connections.
            await unbroken(partial(conntrack.Conntrack.of(self._maps).forget, row.addresses))
        except BaseException:
            self._left.set()
            raise
        del self._leaving[row.id]
        for address in row.addresses:
            with suppress(NotFound):  # of a pod CIDR that the node has no more
                self._pools.release(address)
        self._registry.forget(row.id)

    async def _forgotten(self, row: EndpointRow) -> None:
        """Until the kernel has no row of the endpoint any more, or for a while."""
        try:
            await eventually(
                lambda: row.ifindex not in self._maps["podwire_devices"],
                timeout=GONE_WITHIN,
                what="the kernel to forget the endpoint",
                interval=0.002,
            )
        except TimeoutError:
            log.warning("the kernel's rows of endpoint %d are still there; its device goes anyway", row.id)
