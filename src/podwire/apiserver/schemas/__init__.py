"""Schemas of the built-in kinds, by name.

Declared one line a field in the modules beside this one, in the small language that `language`
reads; made into OpenAPI v3 when first asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from podwire.apiserver.schemas import cluster, core, extensions, language, meta, network, pods, workloads

Object = dict[str, Any]


@cache
def definitions() -> dict[str, Object]:
    """All definitions of built-in kinds and their parts, as OpenAPI v3 schemas."""
    found: dict[str, Object] = {}
    for module in (meta, core, pods, cluster, workloads, network, extensions):
        found.update(language.parse(module.DEFINITIONS))
    return found


def definition(name: str) -> Object:
    """The schema called `name`; an object with any members where nothing is declared."""
    return definitions().get(name) or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
