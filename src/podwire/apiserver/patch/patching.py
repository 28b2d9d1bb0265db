"""One entry for all patches: which form, applied to which part of the object."""

from __future__ import annotations

from typing import Any

from podwire.apiserver import content
from podwire.apiserver.kinds import Kind
from podwire.apiserver.objects import Objects, Options, Written
from podwire.apiserver.patch import jsonpatch, merge
from podwire.apiserver.status import StatusError, bad_request

Object = dict[str, Any]


def patch(
    objects: Objects,
    kind: Kind,
    namespace: str,
    name: str,
    form: str,
    body: Any,
    options: Options,
    subresource: str = "",
) -> Written:
    """Apply `body` in the form its media type names; 415 where that is none."""

    def edit(current: Object) -> Object:
        if form == content.JSON_PATCH:
            changed = jsonpatch.apply(current, body)
        elif not isinstance(body, dict):
            raise bad_request("a merge patch is an object")
        elif form == content.MERGE_PATCH:
            changed = merge.merge(current, body)
        else:
            raise StatusError(
                415, "UnsupportedMediaType", f"supported patch types: {', '.join(content.PATCHES)}"
            )
        if not isinstance(changed, dict):
            raise bad_request("the patch leaves no object")
        return changed

    return objects.change(kind, namespace, name, edit, options, subresource)
