"""metadata.managedFields: who set which field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podwire.apiserver.kinds import Kind
    from podwire.apiserver.objects import Options

Object = dict[str, Any]


def same(body: Object, old: Object) -> bool:
    """Whether two states of an object differ in nothing but managedFields' times."""
    return _bare(body) == _bare(old)


def _bare(body: Object) -> Object:
    meta = {
        key: value
        for key, value in body["metadata"].items()
        if key not in ("managedFields", "resourceVersion")
    }
    return {**body, "metadata": meta}


def record(
    kind: Kind, body: Object, old: Object | None, options: Options, sent: Any = None, subresource: str = ""
) -> None:
    """Keep what is known about managers."""
    if old is not None and "managedFields" in old["metadata"]:
        body["metadata"]["managedFields"] = old["metadata"]["managedFields"]
