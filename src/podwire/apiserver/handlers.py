"""Resource requests: what each verb does, from the parsed request to the answer.

In between the HTTP server and `objects`: reads options from the query, turns bodies into changes,
and shapes what is answered (object, list, table, watch).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from podwire.apiserver import content, patching, selectors, status, subresources, tables, watch
from podwire.apiserver.auth import Authenticator, User
from podwire.apiserver.objects import Objects
from podwire.apiserver.options import DeleteOptions, Options, Written
from podwire.apiserver.route import Route
from podwire.apiserver.store import Stored
from podwire.base.aio import Room

Object = dict[str, Any]
_SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct):
    """One request: where to, by whom, with what."""

    request: web.BaseRequest
    route: Route
    user: User
    form: content.Form
    body: Any = None

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def namespace(self) -> str:
        """The namespace of a request for one object; cluster-scoped kinds have none."""
        if not self.route.kind.namespaced:
            return ""
        if self.route.namespace is None:
            raise status.bad_request(f"{self.route.kind.plural} live in a namespace; name it in the URL")
        return self.route.namespace


def write_options(call: Call) -> Options:
    """fieldManager, dryRun, fieldValidation and force; 400 where they are none."""
    query = call.query
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise status.bad_request(f'dryRun: Unsupported value: "{dry[:40]}": supported values: "All"')
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise status.bad_request('fieldValidation: supported values: "Ignore", "Warn", "Strict"')
    manager = query.get("fieldManager") or call.request.headers.get("User-Agent", "unknown").split("/")[0]
    if len(manager) > 128 or not manager.isprintable():
        raise status.bad_request("fieldManager must be at most 128 printable characters")
    return Options(manager, dry == "All", validation, query.get("force") in ("true", "1"))


def delete_options(call: Call) -> DeleteOptions:
    """From the body and, where it says nothing, from the query."""
    body = call.body if isinstance(call.body, dict) else {}
    query = call.query
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    if isinstance(grace, str) and grace.lstrip("-").isdigit() and len(grace) < 12:
        grace = int(grace)
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool) or abs(grace) > 2**31):
        raise status.bad_request("gracePeriodSeconds must be a whole number")
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    if orphan is not None and not propagation:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise status.bad_request('propagationPolicy: supported values: "Background", "Foreground", "Orphan"')
    conditions = body.get("preconditions") or {}
    if not isinstance(conditions, dict):
        raise status.bad_request("preconditions must be an object")
    dry = body.get("dryRun") or query.get("dryRun")
    if dry not in (None, "", [], "All", ["All"]):
        raise status.bad_request('dryRun: supported values: "All"')
    uid, revision = conditions.get("uid") or "", conditions.get("resourceVersion") or ""
    return DeleteOptions(grace, propagation, str(uid), str(revision), bool(dry))


class Handlers:
    """All verbs on all kinds."""

    def __init__(self, objects: Objects, authenticator: Authenticator) -> None:
        self.objects = objects
        self.authenticator = authenticator
        self.store = objects.store
        self.watchers: set[watch.Watcher] = set()
        self.room = Room("watches", watch.WATCHES)

    # -- one object

    def get(self, call: Call) -> web.Response:
        return self.one(call, self.objects.get(call.route.kind, call.namespace, call.route.name))

    def create(self, call: Call) -> web.Response:
        kind = call.route.kind
        if kind.internal:
            return self._review(call)
        written = self.objects.create(kind, call.namespace, call.body, write_options(call))
        return self.written(call, written)

    def _review(self, call: Call) -> web.Response:
        kind = call.route.kind
        if kind.plural == "bindings":
            meta = call.body.get("metadata") if isinstance(call.body, dict) else None
            name = meta.get("name") if isinstance(meta, dict) else None
            subresources.bind(self.objects, call.namespace, str(name or ""), call.body)
            return answer(_SUCCESS, 201)
        return answer(subresources.review(kind, call.user, self.authenticator, call.body), 201)

    def special(self, call: Call) -> web.Response:
        """Subresources other than status."""
        route, objects = call.route, self.objects
        place = (call.namespace, route.name)
        match call.request.method, route.subresource:
            case "GET", "scale":
                return answer(subresources.scale_of(objects.get(route.kind, *place).object))
            case ("PUT" | "PATCH") as method, "scale":
                form = call.request.content_type if method == "PATCH" else ""
                return answer(
                    subresources.write_scale(
                        objects, route.kind, *place, form, call.body, write_options(call)
                    )
                )
            case "POST", "binding":
                subresources.bind(objects, *place, call.body)
                return answer(_SUCCESS, 201)
            case "POST", "eviction":
                return answer(subresources.evict(objects, *place, call.body), 201)
            case "POST", "token":
                return answer(subresources.token(objects, self.authenticator, *place, call.body), 201)
            case "PUT", "finalize":
                return answer(subresources.finalize(objects, route.name, call.body))
        raise status.method_not_allowed(call.request.method)

    def update(self, call: Call) -> web.Response:
        route = call.route
        options = write_options(call)
        if not isinstance(call.body, dict):
            raise status.bad_request(f"the body must be one {route.kind.kind} object")
        return self.written(
            call,
            self.objects.update(
                route.kind, call.namespace, route.name, call.body, options, route.subresource
            ),
        )

    def patch(self, call: Call) -> web.Response:
        route = call.route
        target = patching.Target(self.objects, route.kind, call.namespace, route.name, route.subresource)
        written = target.patch(call.request.content_type, call.body, write_options(call))
        return self.written(call, written)

    def delete(self, call: Call) -> web.Response:
        kind, options = call.route.kind, delete_options(call)
        written = self.objects.delete(kind, call.namespace, call.route.name, options)
        if not written.removed or kind.strategy.grace:
            return self.one(call, written.stored)
        uid = written.stored.object["metadata"]["uid"]
        return answer(status.success(kind.plural, kind.group, call.route.name, uid))

    def one(self, call: Call, stored: Stored, code: int = 200) -> web.Response:
        kind, form = call.route.kind, call.form
        if form.shape == "Table":
            return answer(
                tables.table(kind, [stored], _include(call), _now(), revision=stored.revision), code
            )
        if form.shape.startswith("PartialObjectMetadata"):
            return answer(tables.partial(stored.object), code)
        return web.Response(body=tables.render(kind, stored), status=code, content_type="application/json")

    def written(self, call: Call, written: Written) -> web.Response:
        response = self.one(call, written.stored, 201 if written.created else 200)
        for warning in written.warnings[:20]:
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            if text.isprintable():
                response.headers.add("Warning", f'299 - "{text[:200]}"')
        return response

    # -- many

    def selected(self, call: Call) -> selectors.Predicate | None:
        query, kind = call.query, call.route.kind
        by_label = selectors.labels(query["labelSelector"]) if query.get("labelSelector") else None
        by_field = (
            selectors.fields(query["fieldSelector"], kind.fields) if query.get("fieldSelector") else None
        )
        if call.route.name:
            name = call.route.name
            return watch.every(by_label, by_field, lambda body: bool(body["metadata"]["name"] == name))
        return watch.every(by_label, by_field)

    def list_all(self, call: Call) -> web.Response:
        kind = call.route.kind
        chosen = self._chosen(call)
        revision, left, token = self.store.revision, 0, ""
        limit = _whole(call.query, "limit") or 0
        if call.query.get("continue"):
            revision, after = _token(call.query["continue"])
            chosen = [one for one in chosen if (one.namespace, one.name) > after]
        if limit and len(chosen) > limit:
            left, chosen = len(chosen) - limit, chosen[:limit]
            token = _continue(revision, chosen[-1])
        meta: Object = {"resourceVersion": str(revision)}
        if token:
            meta["continue"] = token
            if self.selected(call) is None:
                meta["remainingItemCount"] = left
        form = call.form
        if form.shape == "Table":
            return answer(tables.table(kind, chosen, _include(call), _now(), meta=meta))
        if form.shape.startswith("PartialObjectMetadata"):
            items = [tables.partial(one.object) for one in chosen]
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
            return answer({**head, "items": items})
        head = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta}
        rendered = b",".join(tables.render(kind, one) for one in chosen)
        body = _encode(head)[:-1] + b',"items":[' + rendered + b"]}"
        return web.Response(body=body, content_type="application/json")

    def delete_collection(self, call: Call) -> web.Response:
        options = delete_options(call)
        kind = call.route.kind
        chosen = self._chosen(call)
        for one in chosen:
            self.objects.delete(kind, one.namespace, one.name, options)
        meta = {"resourceVersion": str(self.store.revision)}
        head = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta}
        return answer({**head, "items": [one.object for one in chosen]})

    def _chosen(self, call: Call) -> list[Stored]:
        kind, test = call.route.kind, self.selected(call)
        found = self.store.list(kind.resource, call.route.namespace if kind.namespaced else "")
        return found if test is None else [one for one in found if test(one.object)]

    # -- changes

    async def watch_all(self, call: Call) -> web.StreamResponse:
        kind, query = call.route.kind, call.query
        since = _whole(query, "resourceVersion")
        if since is not None and since > self.store.revision + 1_000_000:
            raise status.StatusError(504, "Timeout", "Too large resource version")
        initial = query.get("sendInitialEvents") == "true"
        shape = call.form.shape
        include = _include(call)

        def render(stored: Stored) -> bytes:
            if shape == "Table":
                return _encode(tables.table(kind, [stored], include, _now(), revision=stored.revision))
            if shape.startswith("PartialObjectMetadata"):
                return _encode(tables.partial(stored.object))
            return tables.render(kind, stored)

        namespace = call.route.namespace if kind.namespaced else None
        watcher = watch.Watcher(self.store, kind.resource, namespace, self.selected(call), render)
        with self.room.one() as room:
            if not room:
                raise status.too_many(self.room.what, self.room.most)
            watcher.open(None if initial or not since else since)
            self.watchers.add(watcher)
            try:
                return await self._stream(call, watcher, initial)
            except ConnectionError:
                return web.Response()  # the client went away
            finally:
                self.watchers.discard(watcher)
                watcher.close()

    async def _stream(self, call: Call, watcher: watch.Watcher, initial: bool) -> web.StreamResponse:
        kind, query = call.route.kind, call.query
        within = _whole(query, "timeoutSeconds") or 3600  # before an answer has begun
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        name = "Table" if call.form.shape == "Table" else kind.kind
        version = "meta.k8s.io/v1" if name == "Table" else kind.api_version
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        loop_time = watch.clock()
        ends = loop_time + within
        if initial:
            events = await watcher.next(0)
            await response.write(watch.encoded(events) + watcher.bookmark(version, name, initial=True))
        while not watcher.overrun and (left := ends - watch.clock()) > 0:
            events = await watcher.next(min(left, watch.BOOKMARK_SECONDS))
            if events:
                await response.write(watch.encoded(events))
            elif bookmarks:
                await response.write(watcher.bookmark(version, name))
        await response.write_eof()
        return response


def answer(body: Any, code: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=code, content_type="application/json")


def _include(call: Call) -> str:
    include = call.query.get("includeObject") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise status.bad_request('includeObject: supported values: "None", "Metadata", "Object"')
    return include


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise status.bad_request(f"{name} must be a whole number: {text[:40]}")
    return int(text)


def _continue(revision: int, last: Stored) -> str:
    raw = _encode([revision, last.namespace, last.name])
    return base64.urlsafe_b64encode(raw).decode()


def _token(text: str) -> tuple[int, tuple[str, str]]:
    try:
        revision, namespace, name = msgspec.json.decode(
            base64.urlsafe_b64decode(text), type=tuple[int, str, str]
        )
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise status.bad_request("continue key is not valid") from error
    return revision, (namespace, name)


def _now() -> datetime:
    return datetime.now(UTC)
