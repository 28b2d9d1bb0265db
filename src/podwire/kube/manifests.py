"""Manifests: YAML files → objects, with the file and line of what is wrong; and applying them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from podwire.base.errors import ApiError, InvalidObject
from podwire.kube.client import Client
from podwire.kube.documents import parse_yaml

Object = dict[str, Any]


class Manifest(msgspec.Struct, frozen=True):
    """One object and where it was written."""

    body: Object
    file: str
    line: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def load(paths: Iterable[Path]) -> list[Manifest]:
    """Objects of files and of the ``*.yaml``, ``*.yml``, ``*.json`` in folders, in order of name."""
    found: list[Manifest] = []
    for path in paths:
        files = (
            sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml", ".json"))
            if path.is_dir()
            else [path]
        )
        for file in files:
            try:
                text = file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidObject(str(file), f"cannot be read: {error}") from error
            found += parse(text, str(file))
    return found


def parse(text: str, file: str = "-") -> list[Manifest]:
    """Objects of a text; a List is taken apart. InvalidObject names file and line."""
    found: list[Manifest] = []
    try:
        documents = list(parse_yaml(text))
    except InvalidObject as error:
        raise InvalidObject(f"{file}: {error.path}" if error.path else file, error.problem) from error
    for document in documents:
        body = document.body
        inner = (
            body.get("items")
            if isinstance(body, dict) and str(body.get("kind", "")).endswith("List")
            else None
        )
        for one in inner if isinstance(inner, list) else [body]:
            _check(one, f"{file}:{document.line}")
            found.append(Manifest(one, file, document.line))
    return found


def _check(body: Any, place: str) -> None:
    if not isinstance(body, dict):
        raise InvalidObject(place, "is no Kubernetes object")
    for name in ("apiVersion", "kind"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise InvalidObject(place, f"{name} is missing")
    meta = body.get("metadata")
    if not isinstance(meta, dict) or not (isinstance(meta.get("name"), str) or meta.get("generateName")):
        raise InvalidObject(place, "metadata.name is missing")


async def apply_manifests(
    client: Client, manifests: Iterable[Manifest], *, manager: str = "podwire", namespace: str | None = None
) -> list[Object]:
    """Server-side apply of each, in order; what comes back. InvalidObject names the file and line."""
    applied = []
    for one in manifests:
        try:
            resource = await client.resource_of(one.body["apiVersion"], one.body["kind"])
            body = one.body
            if resource.namespaced:
                meta = {"namespace": namespace or client.namespace, **body["metadata"]}
                body = {**body, "metadata": meta}
            applied.append(await client.apply(resource, body, manager=manager))
        except ApiError as error:
            raise InvalidObject(one.place, str(error)) from error
    return applied


async def delete_manifests(
    client: Client, manifests: Iterable[Manifest], *, namespace: str | None = None
) -> None:
    """Delete each, last first; what is gone already is no error."""
    for one in reversed(list(manifests)):
        resource = await client.resource_of(one.body["apiVersion"], one.body["kind"])
        place = one.body["metadata"].get("namespace") or namespace or client.namespace
        await client.delete(resource, one.body["metadata"]["name"], place if resource.namespaced else None)
