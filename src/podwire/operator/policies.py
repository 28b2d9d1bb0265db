"""Whether policies are valid, in their status: said by one for the whole cluster.

An agent knows as well whether it understands a policy, but 5,000 agents that ask the API for each of
10,000 policies are 50 million requests, for a word that is the same from all. What is a node's own (a
policy that does not fit into its maps) is in the status of its Node and of its endpoints.

It follows the policies themselves, their conditions included: what it wrote, and what somebody else made
of it, comes back as an event. So a policy is written once, and again where it says something else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from podwire.base import moments
from podwire.base.aio import Backoff, Supervised
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.kube import Event, resources
from podwire.kube.resources import Resource

log = logging.getLogger(__name__)
Object = dict[str, Any]

KINDS = (resources.CILIUM_NETWORK_POLICIES, resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES)
# Of agents of an earlier version, one a node: a node that is gone took its own away with nobody.
OUTDATED = "podwire.io/Enforced."


class Api(Protocol):
    """What is needed of `podwire.kube.Client`."""

    def watch(self, resource: Resource) -> AsyncIterator[Event]: ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        subresource: str = "",
    ) -> Object: ...


class PolicyConditions:
    """Keeps the condition `Valid` of all policies. `due` is what is not written yet.

    `parse` raises InvalidObject for what no agent would take.
    """

    def __init__(
        self, api: Api, parse: Callable[[Object], Any], *, backoff: Backoff = Backoff(0.1, 10.0)
    ) -> None:
        self.due: dict[tuple[Resource, str, str], Object] = {}  # policy → patch of its status
        self._api = api
        self._parse = parse
        self._backoff = backoff
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with Supervised("policy conditions") as group:
            for resource in KINDS:
                group.start(f"judge {resource.plural}", self._follow(resource))
            group.start("write conditions", self._write())
            await group.wait()

    async def _follow(self, resource: Resource) -> None:
        failures = 0
        while True:
            try:
                async for event in self._api.watch(resource):
                    failures = 0
                    self.take(resource, event)
            except (ApiError, Unreachable) as error:  # not served yet, or not for us
                log.warning("watching %s: %s; trying on", resource.plural, error)
            failures += 1
            await asyncio.sleep(self._backoff.after(failures))

    def take(self, resource: Resource, event: Event) -> None:
        """What an event makes due. A policy that is as it should be, or is gone, has nothing due any more."""
        key = resource, event.namespace, event.name
        self.due.pop(key, None)
        if event.kind not in ("ADDED", "MODIFIED"):
            return
        try:
            patch = self._patch(resource, event.object)
        except Exception:  # a fault over one policy must not end the judging of the others
            log.exception("%s %s/%s cannot be judged", resource.kind, event.namespace, event.name)
            return
        if patch is not None:
            self.due[key] = patch
            self._wake.set()

    def _patch(self, resource: Resource, policy: Object) -> Object | None:
        """Of the status; None if it is right."""
        wanted = valid(self._problem(resource, policy))
        status = policy.get("status")
        found = (status if isinstance(status, dict) else {}).get("conditions") or []
        kept = [one for one in found if not str(one.get("type")).startswith(OUTDATED)]
        if len(kept) == len(found) and any(one | wanted == one for one in kept):
            return None
        now = moments.now()
        others = [one for one in kept if one.get("type") != wanted["type"]]
        before = next((one for one in kept if one | wanted == one), {"lastTransitionTime": now})
        conditions = [*others, wanted | {"lastTransitionTime": before["lastTransitionTime"]}]
        # Others may write conditions of their own: on what was read, or, when that comes, on what is new.
        version = {"resourceVersion": policy["metadata"].get("resourceVersion")}
        return {"metadata": version, "status": {"conditions": conditions}}

    def _problem(self, resource: Resource, policy: Object) -> str:
        try:
            self._parse({**policy, "kind": resource.kind})
        except InvalidObject as error:
            return str(error)
        return ""

    async def _write(self) -> None:
        failures = 0
        while True:
            if not self.due:
                self._wake.clear()
                await self._wake.wait()
            failed = ""
            for key, patch in list(self.due.items()):
                resource, namespace, name = key
                try:
                    await self._api.patch(resource, name, patch, namespace or None, subresource="status")
                except ApiError as error:
                    if error.code not in (404, 409):  # gone, or another by now: its event says what is due
                        failed = str(error)
                        continue
                except Unreachable as error:
                    failed = str(error)
                    break
                if self.due.get(key) is patch:
                    del self.due[key]
            failures = failures + 1 if failed else 0
            if failed:
                if failures == 1:
                    log.warning("telling whether policies are valid: %s; trying on", failed)
                await asyncio.sleep(self._backoff.after(failures))


def valid(problem: str) -> Object:
    """Condition Valid, without its time."""
    return {
        "type": "Valid",
        "status": "False" if problem else "True",
        "reason": "Refused" if problem else "Accepted",
        "message": problem or "Policy validation succeeded",
    }
