"""What this node tells the API: its endpoints, itself, and which policies are not in force on it.

Only of what is this node's: what all nodes would say the same of, a policy's being valid, one says for
all (`podwire.operator.policies`).

Write-backs follow tables like everything else. The API being away changes nothing on this node;
what is due is written when it is back, each object once with its latest state (`Reporter.due`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, Protocol

from podwire import kube
from podwire.base.aio import Backoff
from podwire.base.attempts import Attempts
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.base.moments import now
from podwire.kube import resources
from podwire.kube.resources import Resource
from podwire.model.cluster import OWN
from podwire.sources import reports
from podwire.state.table import Batch, Watch
from podwire.state.views import ReadTables
from podwire.stores.events import say

log = logging.getLogger(__name__)
Object = dict[str, Any]
WARNED_FOR = 300.0  # s; a pod that is restricted again within them has been warned


class Api(kube.Writes, Protocol):
    """What is needed of `podwire.kube.Client`. `away` says why it cannot be reached; empty = it can."""

    away: str


class Reporter:
    """Keeps this node's objects in the API. `due` is what is not written yet, `error` the last failure."""

    def __init__(
        self, api: Api, tables: ReadTables, *, node_name: str, backoff: Backoff = Backoff(0.1, 10.0)
    ) -> None:
        self.api = api
        self.tables = tables
        self.node_name = node_name
        self.due: dict[Hashable, Callable[[], Awaitable[None]]] = {}
        self.error = ""
        self.attempts = Attempts()
        self._backoff = backoff
        self._failures = 0
        self._endpoints: dict[tuple[str, str], tuple[Object, Object]] = {}  # body, status as last written
        self._node: Object | None = None  # spec as last written
        self._warned: dict[Hashable, float] = {}  # endpoint → when an event was last due
        self._enforced: Object | None = None  # condition of the Node, as it is there

    async def run(self) -> None:
        """Until cancelled."""
        tables = self.tables
        pruned = known = False
        with Watch(
            tables.endpoints,
            tables.pods,
            tables.endpoint_policies,
            tables.nodes,
            tables.reported_endpoints,
            tables.policy_failures,
            tables.endpoint_failures,
        ) as watch:
            while True:
                try:
                    async with asyncio.timeout(self._backoff.after(self._failures) if self.due else None):
                        self._note(*await watch.next())
                except TimeoutError:
                    pass  # time to try again
                if not pruned and tables.endpoints.ready and tables.reported_endpoints.ready:
                    for row in tables.reported_endpoints:
                        self._concerns((row.namespace, row.name))
                    pruned = True
                if not known and tables.policy_failures.ready:
                    self.due["enforced"] = self._write_enforced  # an earlier life may have told otherwise
                    known = True
                await self._write()

    def _note(
        self,
        endpoints: Batch[Any],
        pods: Batch[Any],
        obeyed: Batch[Any],
        nodes: Batch[Any],
        reported: Batch[Any],
        failures: Batch[Any],
        restricted: Batch[Any],
    ) -> None:
        """What changed is due."""
        for change in endpoints:
            for row in (change.old, change.new):
                if row is not None:
                    self._concerns((row.namespace, row.pod))
        for change in (*obeyed, *restricted):
            endpoint = self.tables.endpoints.get(change.key)
            if endpoint is not None:
                self._concerns((endpoint.namespace, endpoint.pod))
        for change in pods:
            if self.tables.endpoints.by("pod", change.key):
                self._concerns(change.key)
        for change in reported:
            pod: Any = change.key
            if change.new is None:
                self._endpoints.pop(pod, None)  # somebody deleted it: made anew if it is needed
            if self.tables.endpoints.ready:
                self._concerns(pod)
        for change in nodes:
            if any(row is not None and row.local for row in (change.old, change.new)):
                self.due["node"] = self._write_node
                for row in self.tables.endpoints:  # an endpoint names the address of its node
                    self._concerns((row.namespace, row.pod))
        for change in failures:
            self.due["enforced"] = self._write_enforced
            for pod in self._obeying(change.key):
                self._concerns(pod)
        self._note_restricted(restricted)

    def _concerns(self, pod: Any) -> None:
        self.due["endpoint", *pod] = partial(self._write_endpoint, *pod)

    def _note_restricted(self, restricted: Batch[Any]) -> None:
        """An endpoint is denied what the kernel does not know: its pod gets an event as that begins."""
        moment = asyncio.get_running_loop().time()
        self._warned = {key: when for key, when in self._warned.items() if moment - when < WARNED_FOR}
        for change in restricted:
            if change.old is None and change.new is not None and change.key not in self._warned:
                self._warned[change.key] = moment
                self.due["event", change.key] = partial(self._write_event, change.key)

    async def _write(self) -> None:
        """Try all that is due once; what fails stays due. An API that does not answer ends the round."""
        failed, wanted = False, bool(self.due)
        for key, work in list(self.due.items()):
            try:
                await work()
            except (ApiError, Unreachable, InvalidObject) as error:
                failed = True
                if str(error) != self.error:
                    self.error = str(error)
                    log.warning("telling the API about %s: %s; trying on", key, error)
                if isinstance(error, Unreachable):
                    break
            except Exception as error:  # a fault over one object must not end telling of the others
                failed = True
                if repr(error) != self.error:
                    self.error = repr(error)
                    log.exception("telling the API about %s", key)
            else:
                if self.due.get(key) is work:
                    del self.due[key]
        self._failures = self._failures + 1 if failed else 0
        if failed:
            self.attempts.failed(self.error)
        elif wanted:
            self.attempts.succeeded()
        if not self.due:
            self.error = ""

    async def _write_endpoint(self, namespace: str, pod: str) -> None:
        rows = self.tables.endpoints.by("pod", (namespace, pod))
        key = (namespace, pod)
        if not rows or rows[-1].state == "disconnecting":
            # Also what an earlier life wrote, of a pod that is none here any more.
            if key in self._endpoints or key in self.tables.reported_endpoints:
                await self._delete_endpoint(namespace, pod)
                self._endpoints.pop(key, None)
            return
        row = rows[-1]
        obeyed = self.tables.endpoint_policies.get(row.id)
        failed = self.tables.policy_failures.get(obeyed.policy) if obeyed is not None else None
        restricted = self.tables.endpoint_failures.get(row.id)
        told = [reports.failure_of(failed)] if failed is not None else []
        told += [reports.restriction_of(restricted)] if restricted is not None else []
        failure = "; ".join(told)
        known = key in self._endpoints or key in self.tables.reported_endpoints
        if row.state != "ready" and not known and not failure:
            return  # it is being attached: said once it can talk, and not at each step until then
        status = reports.endpoint_status(row, obeyed, self._address(), failure)
        body = reports.endpoint(row, self.tables.pods.get(key))
        written = self._endpoints.get(key)
        if written == (body, status):
            return
        if written is None or written[0] != body:
            await self._make_endpoint(body)
        try:
            await self.api.patch(
                resources.CILIUM_ENDPOINTS, pod, {"status": status}, namespace, subresource="status"
            )
        except ApiError as error:
            if error.code == 404:
                self._endpoints.pop(key, None)  # somebody deleted it: make it anew
            raise
        self._endpoints[key] = (body, status)

    async def _delete_endpoint(self, namespace: str, pod: str) -> None:
        """If it is this node's, and still what it was when that was asked. What it says itself is not enough:
        the address that was this node's may be another's by now, and a pod of the same name run elsewhere."""
        found = await self._get(resources.CILIUM_ENDPOINTS, pod, namespace)
        if found is None or await self._is_elsewhere(found["metadata"]):
            return
        only = {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
        await self.api.delete(resources.CILIUM_ENDPOINTS, pod, namespace, only=only)

    async def _is_elsewhere(self, metadata: Object) -> bool:
        """Whether the pod of a CiliumEndpoint is another node's. One without an owner may be of any pod."""
        pod = await self._get(resources.PODS, metadata["name"], metadata["namespace"])
        if pod is None or pod["spec"].get("nodeName") in (None, "", self.node_name):
            return False
        owners = [one["uid"] for one in metadata.get("ownerReferences") or ()]
        return not owners or pod["metadata"]["uid"] in owners

    async def _get(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        try:
            return await self.api.get(resource, name, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return None

    async def _write_event(self, number: Hashable) -> None:
        row, restricted = self.tables.endpoints.get(number), self.tables.endpoint_failures.get(number)
        if row is None or restricted is None:
            return  # over before it could be told
        await say(self.api, reports.restriction_event(row, restricted, self.node_name, now()))

    async def _make_endpoint(self, body: Object) -> None:
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        try:
            await self.api.create(resources.CILIUM_ENDPOINTS, body, namespace)
        except ApiError as error:
            if error.code != 409:
                raise
            # It is there: of an earlier life of this agent, or of an earlier pod of the same name.
            await self.api.patch(resources.CILIUM_ENDPOINTS, name, {"metadata": body["metadata"]}, namespace)

    async def _write_node(self) -> None:
        row = self.tables.nodes.get((OWN, self.node_name))
        if row is None:
            await self.api.delete(resources.CILIUM_NODES, self.node_name)
            self._node = None
            return
        body = reports.node(row)
        if self._node == body["spec"]:
            return
        try:
            await self.api.create(resources.CILIUM_NODES, body)
        except ApiError as error:
            if error.code != 409:
                raise
            await self.api.patch(resources.CILIUM_NODES, self.node_name, {"spec": body["spec"]})
        self._node = body["spec"]

    async def _write_enforced(self) -> None:
        """Whether all policies are in force here. Of a Node that never said otherwise it is understood: the
        nodes' objects are watched by all agents. That all are, nobody knows before the kernel has all."""
        if not len(self.tables.policy_failures) and not self.tables.policy_failures.ready:
            return
        wanted = reports.enforced_condition(self.tables.policy_failures)
        if self._enforced is None:
            self._enforced = await self._enforced_there(wanted)
        if self._enforced["status"] == wanted["status"] == "True" or self._enforced == wanted:
            return
        moment = now()
        times = {"lastHeartbeatTime": moment}
        if self._enforced["status"] != wanted["status"]:
            times["lastTransitionTime"] = moment
        patch = {"status": {"conditions": [wanted | times]}}
        await self.api.patch(
            resources.NODES, self.node_name, patch, subresource="status", content_type=kube.STRATEGIC
        )
        self._enforced = wanted

    async def _enforced_there(self, wanted: Object) -> Object:
        """The condition as the Node has it; as if it had been well where it has none."""
        node = await self._get(resources.NODES, self.node_name) or {}
        conditions = (node.get("status") or {}).get("conditions") or []
        found = (one for one in conditions if one["type"] == wanted["type"])
        return {key: one.get(key) for one in found for key in wanted} or wanted | {"status": "True"}

    def _obeying(self, policy: Hashable) -> set[tuple[str, str]]:
        """Pods of this node that are to obey `policy`."""
        numbers = {row.endpoint for row in self.tables.endpoint_policies if row.policy == policy}
        rows = (self.tables.endpoints.get(number) for number in numbers)
        return {(row.namespace, row.pod) for row in rows if row is not None}

    def _address(self) -> str:
        """Of this node; empty while it is not known."""
        row = self.tables.nodes.get((OWN, self.node_name))
        return row.addresses[0] if row is not None and row.addresses else ""
