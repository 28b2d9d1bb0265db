"""Reading Kubernetes objects: of each kind the fields that rows are made of, and no others.

A kind is a struct of its fields (`Pod` in `podwire.sources.pods`); an object is decoded straight into
it, which takes a tenth of the time and memory of all that is in it. Whatever is wrong with one of these
fields is `InvalidObject` with the path. An API server checks most of this, but not for objects of
resources it has no schema of, and the agent must not fall over what it is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any, TypeVar, cast

import msgspec

from podwire.base.errors import InvalidObject
from podwire.model import protocol as protocols

Object = Mapping[str, Any]
Kind = TypeVar("Kind")

PROTOCOLS = {"TCP": protocols.TCP, "UDP": protocols.UDP, "SCTP": protocols.SCTP}
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Fields(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A part of an object. Every field may be left out or null: an API gives both for nothing."""


class Metadata(Fields, frozen=True, gc=False):
    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    labels: dict[str, str] | None = None


class Named(Fields, frozen=True, gc=False):
    """Any object; kinds add what their rows need."""

    metadata: Metadata | None = None


def name_of(item: Named) -> tuple[str, str]:
    """(namespace, name)."""
    metadata = item.metadata
    if metadata is None:
        return "", ""
    return sys.intern(metadata.namespace or ""), metadata.name or ""


def labels_of(item: Named) -> dict[str, str]:
    return (item.metadata.labels if item.metadata is not None else None) or {}


def read(kind: type[Kind], raw: bytes | msgspec.Raw) -> Kind:
    """An object as its JSON has it. InvalidObject names what is wrong."""
    try:
        found: Kind = decoder(cast(Hashable, kind)).decode(raw)
        return found
    except msgspec.ValidationError as error:
        raise _wrong(kind, msgspec.json.decode(raw), error) from error
    except msgspec.DecodeError as error:
        raise InvalidObject("", f"is no JSON: {error}") from error


def of(kind: type[Kind], item: Object) -> Kind:
    """An object that is decoded already: one from a manifest, or the answer to a question for it."""
    try:
        return msgspec.convert(item, kind)
    except msgspec.ValidationError as error:
        raise _wrong(kind, item, error) from error


@cache
def decoder(kind: Hashable) -> Any:
    """Of a kind; made once."""
    return msgspec.json.Decoder(cast(Any, kind))


def _wrong(kind: Any, item: Any, error: Exception) -> InvalidObject:
    """Where the first value is that is not what it has to be: the library's words leave out the places
    in lists and the keys of labels."""
    return _find(msgspec.inspect.type_info(kind), item, "") or InvalidObject("", str(error))


_WORDS: dict[type, tuple[type | tuple[type, ...], str]] = {
    msgspec.inspect.StructType: (dict, "must be an object"),
    msgspec.inspect.DictType: (dict, "must be an object"),
    msgspec.inspect.ListType: (list, "must be a list"),
    msgspec.inspect.StrType: (str, "must be a string"),
    msgspec.inspect.BoolType: (bool, "must be true or false"),
}


def _find(kind: msgspec.inspect.Type, value: Any, path: str) -> InvalidObject | None:
    if isinstance(kind, msgspec.inspect.UnionType):
        if value is None:
            return None
        others = [one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)]
        wrong = [_find(one, value, path) for one in others]
        return None if None in wrong else wrong[0]
    if isinstance(kind, msgspec.inspect.IntType):
        least, most = kind.ge or 0, kind.le
        inside = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if inside and (most is None or value <= most):
            return None
        return InvalidObject(path, f"must be a number from {least}{'' if most is None else f' to {most}'}")
    wanted, words = _WORDS.get(type(kind), (object, ""))
    if not isinstance(value, wanted):
        return InvalidObject(path, words)
    found = (_find(*one) for one in _inner(kind, value, path))
    return next((one for one in found if one is not None), None)


def _inner(kind: msgspec.inspect.Type, value: Any, path: str) -> Iterable[tuple[Any, Any, str]]:
    """(kind, value, path) of what is in a value of its kind."""
    if isinstance(kind, msgspec.inspect.StructType):
        for one in kind.fields:
            if one.encode_name in value:
                yield one.type, value[one.encode_name], _join(path, one.encode_name)
    elif isinstance(kind, msgspec.inspect.ListType):
        for index, item in enumerate(value):
            yield kind.item_type, item, f"{path}[{index}]"
    elif isinstance(kind, msgspec.inspect.DictType):
        for key, item in value.items():
            yield kind.value_type, item, _join(path, str(key))


def items(listed: Sequence[Kind] | None) -> Iterable[tuple[int, Kind]]:
    return enumerate(listed or ())


def protocol(name: str | None, path: str) -> int:
    """The IPPROTO number of `name`; TCP where there is none."""
    name = name or "TCP"
    if name not in PROTOCOLS:
        raise InvalidObject(_join(path, "protocol"), f"must be one of {', '.join(PROTOCOLS)}, not {name!r}")
    return PROTOCOLS[name]


def address(value: str, path: str) -> str:
    """Canonical text of an address.

    IPv4 in IPv6 form is the very key that IPv4 has in the kernel, and would take its place there.
    """
    try:
        found = ip_address(value)
    except ValueError as error:
        raise InvalidObject(path, f"{value!r} is no IP address") from error
    if isinstance(found, IPv6Address) and (found.scope_id is not None or found.ipv4_mapped):
        raise InvalidObject(path, f"{value!r} is no address of a cluster: write IPv4 as such, and no zone")
    return str(found)


def prefix(value: str, path: str) -> str:
    """Canonical text of a prefix."""
    try:
        found = ip_network(value, strict=False)
    except ValueError as error:
        raise InvalidObject(path, f"{value!r} is no CIDR") from error
    address(str(found.network_address), path)
    return str(found)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
