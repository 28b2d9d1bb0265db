"""The rules all kinds share: create, read, change and delete with Kubernetes' semantics.

Between the HTTP layer and the store. Everything here is synchronous, so a read and the write that
depends on it cannot be parted; controllers in this process use the same methods as clients do.
Errors are `StatusError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from podwire.apiserver import metadata, stamps, versions
from podwire.apiserver.allocation import Allocations
from podwire.apiserver.config import ClusterSettings
from podwire.apiserver.kinds import Kind, Registry
from podwire.apiserver.options import OWN, DeleteOptions, Options, Written
from podwire.apiserver.patch import managed
from podwire.apiserver.status import (
    FieldError,
    StatusError,
    already_exists,
    bad_request,
    changed_meanwhile,
    conflict,
    forbidden,
    invalid,
    method_not_allowed,
    not_found,
)
from podwire.apiserver.store import Store, Stored
from podwire.apiserver.validation import Checked, check
from podwire.base.moments import now

Object = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Objects:
    """Objects of all kinds in one store."""

    def __init__(self, store: Store, registry: Registry, settings: ClusterSettings) -> None:
        self.store = store
        self.registry = registry
        self.settings = settings
        self.allocations = Allocations(store, settings)

    # -- reading

    def kind(self, resource: str) -> Kind:
        """The kind of a storage key (``pods``, ``deployments.apps``) that must exist."""
        found = self.registry.of_resource(resource)
        if found is None:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        return found

    def get(self, kind: Kind, namespace: str, name: str) -> Stored:
        stored = self.store.get(kind.resource, namespace if kind.namespaced else "", name)
        if stored is None:
            raise not_found(kind.plural, kind.group, name)
        return stored

    def find(self, resource: str, namespace: str, name: str) -> Object | None:
        """The object or None; not to be changed."""
        stored = self.store.get(resource, namespace, name)
        return stored.object if stored else None

    def all(self, resource: str, namespace: str | None = None) -> list[Object]:
        """Objects of a resource; not to be changed."""
        return [stored.object for stored in self.store.list(resource, namespace)]

    # -- writing

    def purge(self, resource: str) -> None:
        """Remove all of a resource at once, whoever holds them: nothing defines any more what they are."""
        for stored in self.store.list(resource):
            self.store.remove(resource, stored.namespace, stored.name)

    def create(self, kind: Kind, namespace: str, body: Object, options: Options = OWN) -> Written:
        if "create" not in kind.verbs:
            raise method_not_allowed("POST")
        body = _copied(body)
        self._identify(kind, namespace, body, None)
        meta = body["metadata"]
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if kind.namespaced:
            self._namespace_open(kind, namespace, meta.get("name") or meta.get("generateName") or "")
        owned = meta.pop("managedFields", None)
        stamps.fill(meta)
        name = str(meta.get("name") or "")
        if self.store.get(kind.resource, meta.get("namespace", ""), name):
            raise already_exists(kind.plural, kind.group, name)
        if kind.has_status and not kind.strategy.grace and kind.resource not in ("nodes", "namespaces"):
            body.pop("status", None)
        if kind.strategy.generation:
            meta["generation"] = 1
        warnings = self._validate(kind, body, options)
        kind.strategy.default(body)
        kind.strategy.create(body, self)
        if problems := list(kind.strategy.validate(body, None)):
            raise invalid(kind.kind, kind.group, name, problems)
        managed.record(kind, body, None, options, now(), owned)
        return Written(self._put(kind, body, options), created=True, warnings=warnings)

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Object,
        options: Options = OWN,
        subresource: str = "",
    ) -> Written:
        """Replace; 409 if `body` has another resourceVersion than the object."""
        sent = _copied(body)
        return self.change(kind, namespace, name, lambda _: sent, options, subresource)

    def change(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        edit: Callable[[Object], Object | None],
        options: Options = OWN,
        subresource: str = "",
    ) -> Written:
        """Store what `edit` makes of a copy of the object. Nothing is written where nothing changed."""
        current = self.get(kind, namespace, name)
        old = versions.served(kind, current.object)
        copied = versions.served(kind, current.copy())
        result = edit(copied)
        body = copied if result is None else result
        self._identify(kind, namespace, body, name)
        meta, before = body["metadata"], old["metadata"]
        if meta.get("uid") not in (None, "", before["uid"]):
            why = _other_uid(meta["uid"], before["uid"])
            raise conflict(kind.plural, kind.group, name, why)
        if meta.get("resourceVersion") not in (None, "", before["resourceVersion"]):
            raise changed_meanwhile(kind.plural, kind.group, name)
        owned = meta.pop("managedFields", None)
        if subresource == "status":
            body = _only_status(versions.served(kind, current.copy()), body, kind)
            meta = body["metadata"]
        else:
            metadata.keep(meta, before)
            self._main_only(kind, body, old)
        warnings = self._validate(kind, body, options)
        kind.strategy.default(body)
        kind.strategy.update(body, old, self)
        if kind.strategy.generation and _spec(body) != _spec(old):
            meta["generation"] = before.get("generation", 0) + 1
        if problems := list(kind.strategy.validate(body, old)):
            raise invalid(kind.kind, kind.group, name, problems)
        managed.record(kind, body, old, options, now(), owned, subresource)
        return self._settle(kind, body, current, options, warnings)

    def _settle(
        self, kind: Kind, body: Object, current: Stored, options: Options, warnings: list[str]
    ) -> Written:
        meta, before = body["metadata"], current.object["metadata"]
        new = set(meta.get("finalizers") or []) - set(before.get("finalizers") or [])
        if before.get("deletionTimestamp") and new:
            detail = "no new finalizers can be added if the object is being deleted"
            error = FieldError("metadata.finalizers", detail, reason="FieldValueForbidden", value=sorted(new))
            raise invalid(kind.kind, kind.group, current.name, [error])
        if before.get("deletionTimestamp") and self._removable(kind, body):
            return Written(self._remove(kind, body, options), warnings=warnings, removed=True)
        meta["resourceVersion"] = before["resourceVersion"]
        if managed.same(body, versions.served(kind, current.object)):
            return Written(current, warnings=warnings)
        return Written(self._put(kind, body, options), warnings=warnings)

    def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions = DeleteOptions()
    ) -> Written:
        """Remove, or mark for removal by whoever holds it: a finalizer, the node that runs the pod."""
        if "delete" not in kind.verbs:
            raise method_not_allowed("DELETE")
        current = self.get(kind, namespace, name)
        meta = current.object["metadata"]
        if why := kind.strategy.protected(current.object):
            raise forbidden(kind.plural, kind.group, name, why)
        if options.uid and options.uid != meta["uid"]:
            why = _other_uid(options.uid, meta["uid"])
            raise conflict(kind.plural, kind.group, name, why)
        if options.revision and options.revision != meta["resourceVersion"]:
            raise changed_meanwhile(kind.plural, kind.group, name)
        body = current.copy()
        _propagate(body["metadata"], options.propagation)
        grace = _grace(kind, body, options)
        write = Options(dry_run=options.dry_run)
        if grace == 0 and self._removable(
            kind, {**body, "metadata": {**body["metadata"], "deletionGracePeriodSeconds": 0}}
        ):
            return Written(self._remove(kind, body, write), removed=True)
        meta = body["metadata"]
        sooner = "deletionTimestamp" in meta and grace < meta.get("deletionGracePeriodSeconds", 0)
        if "deletionTimestamp" not in meta or sooner:
            meta["deletionTimestamp"] = stamps.after(grace)
            meta["deletionGracePeriodSeconds"] = grace
            if kind.strategy.generation:
                meta["generation"] = meta.get("generation", 0) + 1
            if kind.resource == "namespaces":
                body.setdefault("status", {})["phase"] = "Terminating"
        if managed.same(body, current.object):
            return Written(current)
        return Written(self._put(kind, body, write))

    def finalize_namespace(self, name: str, finalizers: list[str]) -> Object:
        """Set who must still empty a namespace; when nobody must and it is being deleted, it goes."""
        kind = self.kind("namespaces")
        current = self.get(kind, "", name)
        body = current.copy()
        body.setdefault("spec", {})["finalizers"] = finalizers
        if body["metadata"].get("deletionTimestamp") and self._removable(kind, body):
            return self._remove(kind, body, OWN).object
        return current.object if body == current.object else self._put(kind, body, OWN).object

    # -- parts

    def _identify(self, kind: Kind, namespace: str, body: Object, name: str | None) -> None:
        """The body is of this kind and belongs where the URL says; gives it both words."""
        if not isinstance(body, dict):
            raise bad_request(f"the body must be one {kind.kind} object")
        given = (body.get("apiVersion") or kind.api_version, body.get("kind") or kind.kind)
        if given != (kind.api_version, kind.kind):
            raise bad_request(
                f"{str(given[1])[:60]} in version {str(given[0])[:60]} was sent where {kind.kind} in version "
                f"{kind.api_version} is expected"
            )
        body["apiVersion"], body["kind"] = given
        if body.get("metadata") is None:
            body["metadata"] = {}
        if problems := list(metadata.shape(body["metadata"])):
            raise invalid(kind.kind, kind.group, name or "", problems)
        meta = body["metadata"]
        for empty in [key for key, value in meta.items() if value is None]:
            del meta[empty]
        if kind.namespaced:
            if meta.setdefault("namespace", namespace) != namespace:
                raise bad_request(
                    f"the namespace of the provided object does not match the namespace sent on the request: "
                    f"{meta['namespace'][:80]} is not {namespace}"
                )
        elif meta.pop("namespace", None):
            raise bad_request(f"{kind.plural} have no namespace, but the object names one")
        if name is not None and meta.setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({meta['name'][:80]}) does not match the name on the URL ({name})"
            )

    def _namespace_open(self, kind: Kind, namespace: str, name: str) -> None:
        space = self.store.get("namespaces", "", namespace)
        if space is None:
            raise not_found("namespaces", "", namespace)
        if space.object["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(kind.plural, kind.group, name, why)

    def _validate(self, kind: Kind, body: Object, options: Options) -> list[str]:
        checked: Checked = check(
            kind.schema, body, strict_null=kind.custom, collect=options.validation != "Ignore"
        )
        if checked.unknown and options.validation == "Strict":
            listed = ", ".join(f'unknown field "{path}"' for path in checked.unknown)
            raise bad_request(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                f"strict decoding error: {listed}"
            )
        errors = [*metadata.valid(body["metadata"], kind.plural), *checked.errors]
        if errors:
            raise invalid(kind.kind, kind.group, str(body["metadata"].get("name", "")), errors)
        if options.validation != "Warn":
            return []
        return [f'unknown field "{path}"' for path in checked.unknown]

    def _main_only(self, kind: Kind, body: Object, old: Object) -> None:
        if not kind.has_status:
            return
        if "status" in old:
            body["status"] = old["status"]
        else:
            body.pop("status", None)

    def _removable(self, kind: Kind, body: Object) -> bool:
        meta = body["metadata"]
        if meta.get("finalizers") or meta.get("deletionGracePeriodSeconds", 0):
            return False
        return not (kind.resource == "namespaces" and body.get("spec", {}).get("finalizers"))

    def _put(self, kind: Kind, body: Object, options: Options) -> Stored:
        meta = body["metadata"]
        if kind.storage:
            kept = self.registry.of_resource(kind.resource)
            body = versions.stored(kind, body, kept.api_version if kept else kind.api_version)
        if options.dry_run:
            return Stored(self.store.revision, body, _encode(body))
        return self.store.put(kind.resource, meta.get("namespace", ""), meta["name"], ordered(body))

    def _remove(self, kind: Kind, body: Object, options: Options) -> Stored:
        meta = body["metadata"]
        if options.dry_run:
            return Stored(self.store.revision, body, _encode(body))
        removed = self.store.remove(kind.resource, meta.get("namespace", ""), meta["name"])
        kind.strategy.deleted(body, self)
        return removed or Stored(self.store.revision, body, _encode(body))


def _other_uid(wanted: str, found: str) -> str:
    return f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"


def ordered(body: Object) -> Object:
    """kind, apiVersion and metadata first, as people expect to read them."""
    first = {"kind": body["kind"], "apiVersion": body["apiVersion"], "metadata": body["metadata"]}
    return {**first, **{key: value for key, value in body.items() if key not in first}}


def _copied(body: Any) -> Any:
    """The caller's object stays as it is: defaults and versions go into a copy."""
    return _decode(_encode(body))


def _spec(body: Object) -> Object:
    return {
        key: value for key, value in body.items() if key not in ("metadata", "status", "kind", "apiVersion")
    }


def _only_status(old: Object, body: Object, kind: Kind) -> Object:
    """The old object with the new status; nodes may label themselves through their status too."""
    if "status" in body:
        old["status"] = body["status"]
    else:
        old.pop("status", None)
    if kind.resource in ("nodes", "pods"):
        for name in ("labels", "annotations"):
            if name in body["metadata"]:
                old["metadata"][name] = body["metadata"][name]
    return old


def _propagate(meta: Object, propagation: str) -> None:
    named = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
    finalizers = [one for one in meta.get("finalizers") or [] if not propagation or one not in named.values()]
    if propagation in named and named[propagation] not in finalizers:
        finalizers.append(named[propagation])
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)


def _grace(kind: Kind, body: Object, options: DeleteOptions) -> int:
    """Seconds whoever runs the object has to end it; 0: it goes at once."""
    if not kind.strategy.grace:
        return 0
    spec, status = body.get("spec", {}), body.get("status", {})
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    grace = options.grace
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds", 30)
    return max(int(grace), 0)
