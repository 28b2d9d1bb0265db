"""What clients send and what they accept: media types and bodies.

JSON is spoken; YAML and Kubernetes' protobuf are understood, too. A client that accepts nothing else
than protobuf gets 406.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import msgspec
from aiohttp import web

from podwire.apiserver import protobuf
from podwire.apiserver.status import StatusError, bad_request
from podwire.base.errors import PodwireError
from podwire.kube.documents import parse_yaml

Object = dict[str, Any]
LARGEST = 3 * 1024 * 1024
SLOWEST = 60.0  # s for a whole body

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)


class Form(msgspec.Struct, frozen=True):
    """How to answer: ``""`` the object, ``Table``, ``PartialObjectMetadata``, or a discovery version."""

    shape: str = ""
    version: str = "v1"
    yaml: bool = False


def accepted(header: str) -> Form:
    """The first form in Accept that can be given; 406 if there is none."""
    if not header:
        return Form()
    for offer in header.split(","):
        kind, *parameters = (part.strip() for part in offer.split(";"))
        given = dict(one.split("=", 1) for one in parameters if "=" in one)
        if kind in ("*/*", "application/*"):
            return Form()
        if kind in ("application/yaml", "application/x-yaml") and "as" not in given:
            return Form(yaml=True)
        if kind != "application/json":
            continue
        shape = given.get("as", "")
        if shape == "":
            return Form()
        if (
            shape in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
            and given.get("v") == "v1"
        ):
            return Form(shape)
        if shape == "APIGroupDiscoveryList" and given.get("v") in ("v2", "v2beta1"):
            return Form(shape, given["v"])
    supported = "application/json, application/yaml"
    raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {supported}")


async def read(request: web.BaseRequest) -> bytes:
    """The body, at most 3 MiB of it, as long as it does not take for ever."""
    try:
        async with asyncio.timeout(SLOWEST):
            raw = await _whole(request)
    except TimeoutError as error:
        message = f"the body of the request did not come within {SLOWEST:g} s"
        raise StatusError(408, "Timeout", message) from error
    match request.headers.get("Content-Encoding", "identity").lower():
        case "identity":
            return raw
        case "gzip" | "x-gzip":
            return _unpacked(raw)
        case other:
            message = f"the content encoding {other} is not known - accepted are: gzip, identity"
            raise StatusError(415, "UnsupportedMediaType", message)


def _unpacked(raw: bytes) -> bytes:
    """As far as a body may go, and no further."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        found = unpacking.decompress(raw, LARGEST + 1)
    except zlib.error as error:
        raise bad_request(f"the body is not gzip: {error}") from error
    if len(found) > LARGEST:
        raise _too_large()
    if not unpacking.eof:
        raise bad_request("the body is not gzip: it ends too early")
    return found


def _too_large() -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {LARGEST}")


async def _whole(request: web.BaseRequest) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_chunked(65536):
        size += len(part)
        if size > LARGEST:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def decode(raw: bytes, content_type: str) -> Any:
    """A body as JSON values; 400 where it cannot be read, 415 where its type is not known."""
    if content_type in ("application/json", "", "application/octet-stream") or content_type in PATCHES[:3]:
        return _json(raw)
    if content_type in ("application/yaml", "application/x-yaml", APPLY_PATCH):
        return _yaml(raw)
    if content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(raw)
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml"
    )
    raise StatusError(415, "UnsupportedMediaType", message)


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not JSON: {error}") from error


def _yaml(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        documents = list(parse_yaml(raw.decode()))
    except (PodwireError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not YAML: {error}") from error
    if len(documents) != 1:
        raise bad_request(f"the body must be one YAML document, not {len(documents)}")
    return documents[0].body
