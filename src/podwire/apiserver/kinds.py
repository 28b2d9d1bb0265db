"""Which kinds the API serves: names, verbs, subresources, and the rules each kind has of its own.

A `Kind` is a value; the rules that differ between kinds are in its `Strategy`. The registry grows
when CustomResourceDefinitions come and shrinks when they go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from podwire.apiserver.status import FieldError

Object = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Claims(Protocol):
    """Addresses and ports of Services: what is free, and who has what."""

    @property
    def families(self) -> list[str]: ...

    def address(self, family: str) -> str: ...

    def claim(self, address: str, owner: tuple[str, str], path: str) -> None: ...

    def port(self, protocol: str, also: set[int]) -> int: ...

    def claim_port(self, port: int, protocol: str, owner: tuple[str, str], path: str) -> None: ...


class Cluster(Protocol):
    """What a strategy sees of all the others' objects while one is written. `Objects` is one."""

    @property
    def registry(self) -> Registry: ...

    @property
    def allocations(self) -> Claims: ...

    def purge(self, resource: str) -> None: ...


class Strategy:
    """What one kind does beyond the common rules. Methods change `body` in place."""

    grace: bool = False  # a delete waits for whoever runs it (pods)
    generation: bool = False  # metadata.generation counts changes of anything but metadata and status

    def default(self, body: Object) -> None:
        """Fill in what the client may leave out."""

    def create(self, body: Object, cluster: Cluster) -> None:
        """Before the object is stored the first time."""

    def update(self, body: Object, old: Object, cluster: Cluster) -> None:
        """Before a change of the main resource is stored."""

    def validate(self, body: Object, old: Object | None) -> Iterable[FieldError]:
        """What the schema cannot say."""
        return ()

    def protected(self, body: Object) -> str:
        """Why the object must not be deleted; empty: it may be."""
        return ""

    def deleted(self, body: Object, cluster: Cluster) -> None:
        """After the object is gone."""


class Subresource(msgspec.Struct, frozen=True):
    """``status``, ``scale``, ``exec``, …: its kind as discovery shows it."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One served resource. `storage` names the resource it is stored as (events are served twice)."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    fields: dict[str, str] = {}
    storage: str = ""
    strategy: Strategy = msgspec.field(default_factory=Strategy)
    schema: Object | None = None
    columns: tuple[Object, ...] = ()
    custom: bool = False
    internal: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The storage key: ``pods``, ``deployments.apps``."""
        return self.storage or (f"{self.plural}.{self.group}" if self.group else self.plural)

    @property
    def list_kind(self) -> str:
        return self.kind + "List"

    def subresource(self, name: str) -> Subresource | None:
        return next((one for one in self.subresources if one.name == name), None)

    @property
    def has_status(self) -> bool:
        return self.subresource("status") is not None


class Registry:
    """Kinds by where they are served. The order of groups is the order of registration."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self.revision = 0
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        self._kinds[kind.group, kind.version, kind.plural] = kind
        self.revision += 1

    def drop(self, group: str, plural: str) -> None:
        gone = [key for key in self._kinds if key[0] == group and key[2] == plural]
        for key in gone:
            del self._kinds[key]
        self.revision += 1

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Kind | None:
        group, _, version = api_version.rpartition("/")
        return next(
            (one for one in self if one.group == group and one.version == version and one.kind == kind), None
        )

    def of_resource(self, resource: str) -> Kind | None:
        """The kind objects of a storage key are kept as."""
        return next((one for one in self if one.resource == resource and not one.storage), None)

    def groups(self) -> dict[str, list[str]]:
        """Group → versions, in order of registration."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._kinds:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found

    def of_version(self, group: str, version: str) -> list[Kind]:
        return [kind for kind in self if kind.group == group and kind.version == version]

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._kinds.values()))
