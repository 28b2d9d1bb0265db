"""From a URL's path to what it names. Pure.

``/api/v1/namespaces/prod/pods/web/log`` → pods, namespace prod, name web, subresource log.
"""

from __future__ import annotations

import msgspec

from podwire.apiserver.kinds import Kind, Registry
from podwire.apiserver.status import StatusError


class Route(msgspec.Struct, frozen=True):
    """One resource request. `namespace` is None for all namespaces; `rest` follows the subresource."""

    kind: Kind
    namespace: str | None
    name: str
    subresource: str


def unknown() -> StatusError:
    """404 for a path that nothing serves; with details, which kubectl debug reads without a look."""
    cause = {"reason": "UnexpectedServerResponse", "message": "404 page not found"}
    return StatusError(
        404, "NotFound", "the server could not find the requested resource", {"causes": [cause]}
    )


def resolve(registry: Registry, path: str) -> Route:
    """The route of `path` below ``/api/<version>`` or ``/apis/<group>/<version>``; 404 otherwise."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise unknown()
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) >= 3 and registry.find(group, version, rest[2]):
        nested = registry.find(group, version, rest[2])
        if nested and nested.namespaced:
            namespace, rest = rest[1], rest[2:]
    kind = registry.find(group, version, rest[0])
    if kind is None or len(rest) > 3:
        raise unknown()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and kind.subresource(subresource) is None:
        raise unknown()
    return Route(kind, namespace, name, subresource)
