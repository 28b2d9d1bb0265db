"""One map's work done in the kernel: in batches, into a bigger map if this one is full, else entry by entry.

The work is a value, made on the loop and taken in on the loop. Where it is much, a thread does it
meanwhile; the thread has that value and the map, and nothing else of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from podwire.base.aio import unbroken
from podwire.base.errors import MapFull, PodwireError
from podwire.datapath.mirror import Mirror, Target

log = logging.getLogger(__name__)

T = TypeVar("T")
IN_A_THREAD = 2000  # entries from which on writing would hold up the loop

# A bigger map: asked with a name and the entries that need room, it returns a map with what the old one held,
# or None if there cannot be one. It loads programs, so it is always asked in a thread.
Grow = Callable[[str, int], Target | None]


async def write(mirror: Mirror, grow: Grow | None, work: Mapping[bytes, bytes]) -> bool:
    """Insert and replace `work`; whether anything was."""
    if not work:
        return False
    failed_before = mirror.failing
    error = await _do(len(work), partial(_put_many, mirror.map, work))
    while isinstance(error, MapFull) and grow is not None:
        needed = len(mirror.held) + sum(key not in mirror.held for key in work)
        grown = await unbroken(partial(grow, mirror.name, needed))
        if grown is None or grown.capacity <= mirror.map.capacity:
            break
        mirror.map.close()
        mirror.map = grown
        error = await _do(len(work), partial(_put_many, mirror.map, work))
    if error is None:
        return mirror.wrote(work, {})
    if not failed_before:
        log.warning("writing entry by entry: %s", error)
    return mirror.wrote(work, await _do(len(work), partial(_put_singly, mirror.map, work)))


async def remove(mirror: Mirror, keys: Sequence[bytes]) -> None:
    """Delete `keys`, which no row wants any more."""
    if keys:
        mirror.removed(keys, await _do(len(keys), partial(_delete, mirror.map, keys)))


async def _do(entries: int, work: Callable[[], T]) -> T:
    return await unbroken(work) if entries > IN_A_THREAD else work()


def _put_many(target: Target, work: Mapping[bytes, bytes]) -> PodwireError | None:
    try:
        target.put_many(work.items())
    except PodwireError as error:
        return error
    return None


def _put_singly(target: Target, work: Mapping[bytes, bytes]) -> dict[bytes, PodwireError]:
    failures = {}
    for key, value in work.items():
        try:
            target.put(key, value)
        except PodwireError as error:
            failures[key] = error
    return failures


def _delete(target: Target, keys: Sequence[bytes]) -> PodwireError | None:
    try:
        target.delete_many(keys)
    except PodwireError as error:
        return error
    return None
