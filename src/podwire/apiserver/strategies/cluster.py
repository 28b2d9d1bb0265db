"""Namespaces, nodes, configuration."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

from podwire.apiserver.kinds import Cluster, Strategy
from podwire.apiserver.status import FieldError, forbidden_field

Object = dict[str, Any]
_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")
_MOST = 1024 * 1024
_KEPT = ("default", "kube-system", "kube-public", "kube-node-lease")


class ConfigMaps(Strategy):
    fields: tuple[str, ...] = ("data", "binaryData")

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        size = 0
        for name in self.fields:
            for key, value in (body.get(name) or {}).items():
                size += len(value)
                if len(key) > 253 or not _KEY.match(key) or key in (".", ".."):
                    detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                    yield FieldError(f"{name}[{key[:80]}]", detail, value=key)
        if size > _MOST:
            yield FieldError("", f"must have at most {_MOST} bytes", reason="FieldValueTooLong", value="")
        if old is None or not old.get("immutable"):
            return
        for name in self.fields:
            if body.get(name) != old.get(name):
                yield forbidden_field(name, "field is immutable when `immutable` is set")
        if not body.get("immutable"):
            yield forbidden_field("immutable", "field is immutable when `immutable` is set")


class Secrets(ConfigMaps):
    fields = ("data",)

    def default(self, body: Object) -> None:
        body.setdefault("type", "Opaque")
        text = body.pop("stringData", None)
        if text:
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
            body["data"] = {**(body.get("data") or {}), **encoded}

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        yield from super().validate(body, old)
        if old is not None and old.get("type") != body.get("type"):
            yield FieldError("type", "field is immutable", value=body.get("type"))


class Namespaces(Strategy):
    def protected(self, body: Object) -> str:
        return "this namespace may not be deleted" if body["metadata"]["name"] in _KEPT else ""

    def create(self, body: Object, cluster: Cluster) -> None:
        body["spec"] = {"finalizers": ["kubernetes"]}
        body["status"] = {"phase": "Active"}
        labels = body["metadata"]["labels"] = body["metadata"].get("labels") or {}
        labels["kubernetes.io/metadata.name"] = body["metadata"]["name"]

    def update(self, body: Object, old: Object, cluster: Cluster) -> None:
        body["spec"] = old.get("spec", {})
        labels = body["metadata"]["labels"] = body["metadata"].get("labels") or {}
        labels["kubernetes.io/metadata.name"] = body["metadata"]["name"]


class Nodes(Strategy):
    def default(self, body: Object) -> None:
        spec = body.setdefault("spec", {})
        if spec.get("podCIDRs") and not spec.get("podCIDR"):
            spec["podCIDR"] = spec["podCIDRs"][0]
        elif spec.get("podCIDR") and not spec.get("podCIDRs"):
            spec["podCIDRs"] = [spec["podCIDR"]]

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        before = (old or {}).get("spec", {}).get("podCIDRs")
        if before and body["spec"].get("podCIDRs") != before:
            yield forbidden_field(
                "spec.podCIDRs", "node updates may not change podCIDR except from empty to valid"
            )
