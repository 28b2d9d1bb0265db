"""Generations of a node's maps: how a map gets another layout or more room while packets flow.

Maps are pinned in ``<bpf_dir>/maps-<n>``. The next generation is prepared in ``maps-<n+1>-prepared``: maps
that fit are pinned there as well, those that only were too small are copied, the rest begins empty. A map
fits if the kernel has it as declared, and if a mark beside its pin says that its bytes mean the same.
One rename makes it the current one, when it has all it needs; until then a process that dies leaves
nothing that the next one would take for good.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping

from podwire.bpf import library
from podwire.bpf.map import Map, MapType, raw
from podwire.datapath.catalogue import CATALOGUE
from podwire.datapath.maps import Maps

log = logging.getLogger(__name__)

PREPARED = "-prepared"  # a bpf filesystem takes no dots
COPIED = (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE, MapType.ARRAY)
Unfit = Mapping[str, set[str]]  # map → fields in which it differs


def directory(bpf_dir: str, generation: int) -> str:
    return os.path.join(bpf_dir, f"maps-{generation}")


def numbers(bpf_dir: str) -> list[int]:
    """Those there are, prepared ones left out."""
    names = os.listdir(bpf_dir) if os.path.isdir(bpf_dir) else []
    return sorted(int(found.group(1)) for name in names if (found := re.fullmatch(r"maps-(\d+)", name)))


def newest(bpf_dir: str) -> int:
    return max(numbers(bpf_dir), default=1)


def open_maps(bpf_dir: str) -> Maps:
    """The maps of a node whose agent may be another process."""
    return Maps(directory(bpf_dir, newest(bpf_dir)))


def marks(directory: str) -> set[str]:
    """What says of each map how this version reads it: empty directories beside the pins."""
    return {os.path.join(directory, f"{spec.name}-{spec.layout:08x}") for spec in CATALOGUE.values()}


def of_another_layout(directory: str) -> list[str]:
    """Maps there whose bytes another version wrote, and meant otherwise, however many they are."""
    there = set(os.listdir(directory)) if os.path.isdir(directory) else set()
    known = {os.path.basename(mark).rpartition("-")[0] for mark in marks(directory) if os.path.isdir(mark)}
    return sorted(name for name in CATALOGUE if name in there and name not in known)


def prepare(bpf_dir: str, unfit: Unfit) -> str:
    """The directory of the next generation, begun anew, with every map of the newest that fits."""
    current = newest(bpf_dir)
    old, new = directory(bpf_dir, current), directory(bpf_dir, current + 1) + PREPARED
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new, mode=0o700)
    for name in os.listdir(old):
        if name in CATALOGUE and name not in unfit:
            with open_raw(os.path.join(old, name)) as carried:
                carried.pin(os.path.join(new, name))
    return new


def copy_grown(bpf_dir: str, made: Maps, unfit: Unfit) -> set[str]:
    """Copy the entries of maps that only were too small; the maps that begin empty instead."""
    old = directory(bpf_dir, newest(bpf_dir))
    empty = set()
    for name, fields in unfit.items():
        with open_raw(os.path.join(old, name)) as small, open_raw(made.path(name)) as grown:
            if fields != {"max_entries"} or small.type not in COPIED:
                empty.add(name)
                continue
            copied = grown.put_many(small.items())
            log.info("map %s: from %d to %d, %d entries kept", name, small.capacity, grown.capacity, copied)
    return empty


def make_current(maps: Maps) -> None:
    """The prepared generation that `maps` are of is the newest from now on."""
    if maps.directory.endswith(PREPARED):
        current = maps.directory.removesuffix(PREPARED)
        os.rename(maps.directory, current)
        maps.move(current)


def drop_older(bpf_dir: str) -> None:
    """Remove all generations but the newest, and what was prepared and never used."""
    current = newest(bpf_dir)
    for number in numbers(bpf_dir):
        if number < current:
            shutil.rmtree(directory(bpf_dir, number))
    shutil.rmtree(directory(bpf_dir, current + 1) + PREPARED, ignore_errors=True)


def open_raw(path: str) -> Map[bytes, bytes]:
    """A pinned map, keys and values as bytes."""
    fd = library.open_pinned(path)
    info = library.map_info(fd)
    return Map(fd, raw(info.key_size), raw(info.value_size))
