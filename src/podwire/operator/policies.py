"""Whether policies are valid, in their status: said by one for the whole cluster.

An agent knows as well whether it understands a policy, but 5,000 agents that ask the API for each of
10,000 policies are 50 million requests, for a word that is the same from all. What is a node's own (a
policy that does not fit into its maps) is in the status of its Node and of its endpoints.

It follows the policies themselves, their conditions included: what it wrote, and what somebody else made
of it, comes back as an event. So a policy is written once, and again where it says something else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from podwire.base import moments
from podwire.base.errors import ApiError, InvalidObject
from podwire.kube import Event, Resource, Writes, resources

log = logging.getLogger(__name__)
Object = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace, name

KINDS = (resources.CILIUM_NETWORK_POLICIES, resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES)
# Of agents of an earlier version, one a node: a node that is gone took its own away with nobody.
OUTDATED = "podwire.io/Enforced."


class PolicyConditions:
    """Keeps the condition `Valid` of all policies. `due` is what is not written yet.

    `parse` raises InvalidObject for what no agent would take.
    """

    name = "policy-conditions"
    follows = KINDS
    needs_all = False

    def __init__(self, api: Writes, parse: Callable[[Object], Any]) -> None:
        self.due: dict[Key, Object] = {}  # policy → patch of its status
        self._api = api
        self._parse = parse

    def take(self, resource: Resource, event: Event) -> Iterable[Key]:
        """A policy that is as it should be, or is gone, has nothing due any more."""
        key = resource.kind, event.namespace, event.name
        self.due.pop(key, None)
        if event.kind == "DELETED":
            return ()
        try:
            patch = self._patch(resource, event.object)
        except Exception:  # a fault over one policy: it is not told again until it changes
            log.exception("%s %s/%s cannot be judged", resource.kind, event.namespace, event.name)
            return ()
        if patch is None:
            return ()
        self.due[key] = patch
        return (key,)

    async def reconcile(self, key: Key) -> None:
        patch = self.due.get(key)
        if patch is None:
            return
        kind, namespace, name = key
        resource = next(one for one in KINDS if one.kind == kind)
        try:
            await self._api.patch(resource, name, patch, namespace or None, subresource="status")
        except ApiError as error:
            if error.code not in (404, 409):  # gone, or another by now: its event says what is due
                raise
        if self.due.get(key) is patch:
            del self.due[key]

    def _patch(self, resource: Resource, policy: Object) -> Object | None:
        """Of the status; None if it is right."""
        wanted = valid(self._problem(resource, policy))
        status = policy.get("status")
        found = (status if isinstance(status, dict) else {}).get("conditions") or []
        kept = [one for one in found if not str(one.get("type")).startswith(OUTDATED)]
        if len(kept) == len(found) and any(one | wanted == one for one in kept):
            return None
        others = [one for one in kept if one.get("type") != wanted["type"]]
        before = next((one for one in kept if one | wanted == one), {"lastTransitionTime": moments.now()})
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


def valid(problem: str) -> Object:
    """Condition Valid, without its time."""
    return {
        "type": "Valid",
        "status": "False" if problem else "True",
        "reason": "Refused" if problem else "Accepted",
        "message": problem or "Policy validation succeeded",
    }
