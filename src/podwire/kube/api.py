"""What its users know of a Kubernetes API: a narrow protocol, served by more than one.

`Client` serves it over HTTP; the embedded API serves it in its own process. What is written on it (the
operator's controllers, the agents' reports) need not know which. Failures are `ApiError` (the API's own
answer) and `Unreachable` (none), whichever it is. Objects that are given out belong to who asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from podwire.kube.resources import Resource
from podwire.kube.watch import Event

Object = dict[str, Any]
Items = list[Object]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"  # of a list of conditions, the one that is named


class Watches(Protocol):
    """Tells what there is and what becomes of it."""

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[Event]:
        """The objects and their changes, for ever; see `podwire.kube.watch`."""
        ...


class Writes(Protocol):
    """One object at a time: read, and written on what was read."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object: ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        subresource: str = "",
        content_type: str = MERGE,
    ) -> Object:
        """Change a part. A patch that names a resourceVersion is of that version alone, else 409."""
        ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        only: Mapping[str, str] = {},
    ) -> None:
        """What is not there is deleted already. `only` the one of this uid, this resourceVersion."""
        ...


class Api(Watches, Writes, Protocol):
    """All of it."""

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Items:
        """All objects, with kind and apiVersion each."""
        ...

    async def update(self, resource: Resource, body: Object) -> Object:
        """Replace; 409 if it was changed since `body` was read."""
        ...
