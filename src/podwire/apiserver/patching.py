"""One entry for all patches: which form, applied to which part of the object."""

from __future__ import annotations

from typing import Any

from podwire.apiserver import content
from podwire.apiserver.kinds import Kind
from podwire.apiserver.objects import Objects
from podwire.apiserver.options import Options, Written
from podwire.apiserver.patch import apply, fields, jsonpatch, merge, strategic
from podwire.apiserver.patch.managed import Owner
from podwire.apiserver.status import StatusError, bad_request
from podwire.base import moments

Object = dict[str, Any]


class Target:
    """The object a patch is for."""

    def __init__(
        self, objects: Objects, kind: Kind, namespace: str, name: str, subresource: str = ""
    ) -> None:
        self.objects = objects
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.subresource = subresource

    def patch(self, form: str, body: Any, options: Options) -> Written:
        """Apply `body` in the form its media type names; 415 where that is none."""
        if form == content.APPLY_PATCH:
            return self._apply(body, options)
        edit = editing(self.kind, form, body)
        return self.objects.change(self.kind, self.namespace, self.name, edit, options, self.subresource)

    def _apply(self, config: Any, options: Options) -> Written:
        kind = self.kind
        if not isinstance(config, dict):
            raise bad_request(f"the body of an apply must be one {kind.kind} object")
        if not options.manager:
            raise bad_request("fieldManager is required for apply patch")
        meta = config.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise bad_request("metadata must be an object")
        if meta.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        for given, known in (("apiVersion", kind.api_version), ("kind", kind.kind)):
            if config.setdefault(given, known) != known:
                raise bad_request(f"{given} of the applied object is not {known}")
        if meta.setdefault("name", self.name) != self.name:
            raise bad_request(f"the name of the object does not match the name on the URL ({self.name})")
        config = without_null(config)
        stored = self.objects.store.get(kind.resource, self.namespace, self.name)
        live = stored.copy() if stored else None
        if live is None and self.subresource:
            self.objects.get(kind, self.namespace, self.name)
        owner = Owner(options.manager, "Apply", self.subresource, kind.api_version)
        merged, entries = apply.apply(kind, live, config, owner, moments.now(), force=options.force)
        done = Options(options.manager, options.dry_run, options.validation, options.force, entries)
        if live is None:
            merged["metadata"].pop("uid", None)
            return self.objects.create(kind, self.namespace, merged, done)
        if not config["metadata"].get("resourceVersion"):
            merged["metadata"].pop("resourceVersion", None)
        return self.objects.update(kind, self.namespace, self.name, merged, done, self.subresource)


def editing(kind: Kind, form: str, body: Any) -> Any:
    """The change a JSON, merge or strategic merge patch makes, as a function of the object."""
    if form not in content.PATCHES or (form == content.STRATEGIC_PATCH and kind.custom):
        known = [one for one in content.PATCHES if not (kind.custom and one == content.STRATEGIC_PATCH)]
        raise StatusError(415, "UnsupportedMediaType", f"supported patch types: {', '.join(known)}")
    if form != content.JSON_PATCH and not isinstance(body, dict):
        raise bad_request("a merge patch is an object")

    def edit(current: Object) -> Object:
        if form == content.JSON_PATCH:
            changed = jsonpatch.apply(current, body)
        elif form == content.MERGE_PATCH:
            changed = merge.merge(current, body)
        else:
            changed = strategic.merge(fields.schema_of(kind), current, body)
        if not isinstance(changed, dict) or not isinstance(changed.get("metadata"), dict):
            raise bad_request("the patch leaves no object")
        return changed

    return edit


def without_null(value: Any) -> Any:
    """An applied configuration says nothing by null."""
    if isinstance(value, dict):
        return {key: without_null(inner) for key, inner in value.items() if inner is not None}
    return [without_null(one) for one in value] if isinstance(value, list) else value
