"""The API as a reporter meets it: objects in memory, and refusals at the steps that a test names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from podwire.base.errors import ApiError, PodwireError, Unreachable
from podwire.kube.resources import Resource

Refusal = Callable[[], PodwireError]


def conflict() -> ApiError:
    return ApiError(409, "AlreadyExists", "it is there")


def missing() -> ApiError:
    return ApiError(404, "NotFound", "it is not there")


def fault() -> ApiError:
    return ApiError(500, "InternalError", "no")


def silence() -> Unreachable:
    return Unreachable("nobody answers")


class Api:
    """Objects in memory, with the API's answers to who comes too early or too late.

    `refuse` is (verb, resource) → errors to answer with, one for each time it is asked.
    """

    away = ""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.refuse: dict[tuple[str, str], list[Refusal]] = {}
        self.calls: list[tuple[str, str, str]] = []  # verb, resource, name
        self.deleted_only: list[Any] = []

    def _asked(self, verb: str, resource: Resource, name: str) -> None:
        self.calls.append((verb, resource.plural, name))
        refusals = self.refuse.get((verb, resource.plural), [])
        if refusals:
            raise refusals.pop(0)()

    def _found(self, resource: Resource, name: str, namespace: str | None) -> dict[str, Any]:
        key = resource.plural, namespace or "", name
        if key not in self.objects:
            raise missing()
        return self.objects[key]

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        self._asked("get", resource, name)
        return json.loads(json.dumps(self._found(resource, name, namespace)))  # type: ignore[no-any-return]

    async def create(
        self, resource: Resource, body: dict[str, Any], namespace: str | None = None
    ) -> dict[str, Any]:
        name = body["metadata"]["name"]
        self._asked("create", resource, name)
        key = resource.plural, namespace or "", name
        if key in self.objects:
            raise conflict()
        self.objects[key] = json.loads(json.dumps(body))
        self.objects[key]["metadata"] |= {"uid": f"of-{name}", "resourceVersion": "7"}
        return self.objects[key]

    async def patch(
        self, resource: Resource, name: str, patch: Any, namespace: str | None = None, **_: Any
    ) -> dict[str, Any]:
        self._asked("patch", resource, name)
        found = self._found(resource, name, namespace)
        for member, content in patch.items():
            nested = isinstance(content, dict) and isinstance(found.get(member), dict)
            found[member] = {**found[member], **content} if nested else content
        return found

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, *, only: Any = None
    ) -> None:
        self._asked("delete", resource, name)
        self.deleted_only.append(only)
        self.objects.pop((resource.plural, namespace or "", name), None)
