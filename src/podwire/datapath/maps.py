"""The maps of a node, opened where they are pinned.

In the walk: the tables are above, the programs in bpf/ below; what maps there are says `catalogue`.
They live below ``<bpf_dir>/maps-<generation>``: a map whose layout changed, or that must grow, starts
a new generation, into which the others are carried over (see `programs`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from podwire.base import addresses
from podwire.base.errors import KernelError, NotFound
from podwire.bpf.map import Map
from podwire.datapath.catalogue import CATALOGUE
from podwire.model import identity


class Maps:
    """The maps of one directory of pins, opened when first asked for.

    ``maps["podwire_conntrack"]`` is typed as the catalogue says; NotFound if it is not pinned (no
    object that was loaded has it).
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._open: dict[str, Map[Any, Any]] = {}

    def __getitem__(self, name: str) -> Map[Any, Any]:
        opened, directory = self._open, self.directory  # a thread that makes maps bigger may `move` us
        if name not in opened:
            spec = CATALOGUE[name]
            try:
                found = Map.open(os.path.join(directory, name), spec.key, spec.value)
            except KernelError as error:
                raise NotFound(
                    f"map {name} is not in {directory}", hint="is the agent of this node running?"
                ) from error
            found.name = name  # the kernel keeps 15 characters of it
            opened[name] = found
        return opened[name]

    def target(self, name: str) -> Map[bytes, bytes]:
        """The same with keys and values as bytes, on a descriptor of its own: for who writes it."""
        return self[name].untyped()

    def __contains__(self, name: str) -> bool:
        return os.path.exists(self.path(name))

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def move(self, directory: str) -> None:
        """From now on those of another directory. Who still uses one of the old ones keeps it."""
        # In this order, and read in the opposite one: no map of the old directory is kept for one of the new.
        self.directory = directory
        self._open = {}

    def close(self) -> None:
        for opened in self._open.values():
            opened.close()
        self._open.clear()


Address = tuple[str, int, int]  # address, port, protocol


class Numbers(NamedTuple):
    """Numbers that the load balancer's maps have given out."""

    backends: Mapping[Address, int]  # backend → id
    services: Mapping[Address, int]  # frontend → number of its reverse translation
    sets: Mapping[Address, int]  # frontend → its set of many backends


def restore_numbers(maps: Maps) -> Numbers:
    """What the load balancer's maps hold. Connections of the kernel and its frontends remember these
    numbers, so a new agent goes on with them."""
    backends = {
        (addresses.unpack(backend.address), backend.port, backend.protocol): number
        for number, backend in maps["podwire_backends"].items()
    }
    frontends = {
        (addresses.unpack(key.address), key.port, key.protocol): frontend
        for key, frontend in maps["podwire_frontends"].items()
        if key.scope == 0
    }
    return Numbers(
        backends,
        {address: frontend.rev_nat for address, frontend in frontends.items() if frontend.rev_nat},
        {address: frontend.set for address, frontend in frontends.items() if frontend.set},
    )


def restore_prefixes(maps: Maps) -> Mapping[str, int]:
    """Prefix → identity local to this node, as the kernel's ipcache has them."""
    found = {addresses.exact(address): entry.identity for address, entry in maps["podwire_ipcache"].items()}
    found |= {
        addresses.unpack_prefix(key.prefix_length, key.address): entry.identity
        for key, entry in maps["podwire_ipcache_prefixes"].items()
    }
    return {prefix: number for prefix, number in found.items() if identity.is_local(number)}
