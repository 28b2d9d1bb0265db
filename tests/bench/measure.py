"""Interleaved measuring: drift of the machine cancels, what is left is the path.

Every sample of a peer stands between two samples of the peer it is compared with, and its ratio
is against their mean. The figures are medians over rounds. On a shared machine the absolute
numbers of two runs differ by a third; their ratios by a few hundredths.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from namespaces import run
from peers import Peer

# mode → (operations of one sample, of one sample of a quick run)
MODES = {
    "rr": (2000, 1000),
    "connect": (500, 300),
    "crr": (300, 200),
    "udp": (2000, 1000),
    "stream": (192, 64),
}
ROUNDS, QUICK_ROUNDS = 11, 3

# metric → (mode, key in netbench's line, unit, what one unit is of the printed one)
METRICS = {
    "rr": ("rr", "p50_ns", "µs", 1000.0),
    "connect": ("connect", "p50_ns", "µs", 1000.0),
    "crr": ("crr", "p50_ns", "µs", 1000.0),
    "udp": ("udp", "p50_ns", "µs", 1000.0),
    "udp p99": ("udp", "p99_ns", "µs", 1000.0),
    "stream": ("stream", "gbit_s", "Gbit/s", 1.0),
}


@dataclass(frozen=True)
class Row:
    """One measured figure; `ratio` is to the peer `against`, its spread the middle half of the rounds."""

    section: str
    name: str
    metric: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""
    spread: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        return f"{self.name}: {self.metric}"


@dataclass(frozen=True)
class Pair:
    """A peer and the one it is divided by; modes that make no sense for it are left out."""

    peer: Peer
    against: Peer
    modes: tuple[str, ...] = tuple(MODES)


def sample(peer: Peer, mode: str, count: int) -> Mapping[str, float]:
    line: dict[str, float] = json.loads(run(peer.command(mode, count)))
    return line


def paths(pairs: Sequence[Pair], *, quick: bool, tell: Callable[[str], None]) -> list[Row]:
    """All metrics of all pairs; a peer that is compared with itself only gives its values."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rows: list[Row] = []
    for mode, counts in MODES.items():
        chosen = [pair for pair in pairs if mode in pair.modes]
        samples: dict[str, list[tuple[Mapping[str, float], Mapping[str, float] | None]]] = {}
        for number in range(rounds):
            tell(f"{mode}, round {number + 1} of {rounds}")
            for pair in _rotated(chosen, number):
                samples.setdefault(pair.peer.name, []).append(_bracketed(pair, mode, counts[quick]))
        for metric, (of_mode, field, unit, scale) in METRICS.items():
            if of_mode == mode:
                rows += [_row(pair, metric, field, unit, scale, samples[pair.peer.name]) for pair in chosen]
    return rows


def _rotated(pairs: Sequence[Pair], number: int) -> Sequence[Pair]:
    start = number % len(pairs) if pairs else 0
    return [*pairs[start:], *pairs[:start]]


def _bracketed(pair: Pair, mode: str, count: int) -> tuple[Mapping[str, float], Mapping[str, float] | None]:
    """A sample and the mean of the two of the other peer around it."""
    if pair.peer is pair.against:
        return sample(pair.peer, mode, count), None
    before = sample(pair.against, mode, count)
    measured = sample(pair.peer, mode, count)
    after = sample(pair.against, mode, count)
    return measured, {
        key: (before[key] + after[key]) / 2 for key in before if isinstance(before[key], int | float)
    }


def _row(
    pair: Pair,
    metric: str,
    field: str,
    unit: str,
    scale: float,
    samples: Sequence[tuple[Mapping[str, float], Mapping[str, float] | None]],
) -> Row:
    value = statistics.median(measured[field] for measured, _ in samples) / scale
    ratios = sorted(measured[field] / other[field] for measured, other in samples if other is not None)
    if not ratios:
        return Row("paths", pair.peer.name, metric, value, unit)
    quarter = len(ratios) // 4
    spread = (ratios[quarter], ratios[-1 - quarter])
    return Row(
        "paths", pair.peer.name, metric, value, unit, statistics.median(ratios), pair.against.name, spread
    )
