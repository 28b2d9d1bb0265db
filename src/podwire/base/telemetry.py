"""Logging and metrics of one process.

Metrics are few and named as in the field (`podwire_…`); text format is Prometheus' (version
0.0.4). Values are read where they are when somebody asks, so that nothing is counted twice.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `read` gives its samples, by labels."""

    name: str
    kind: str  # counter | gauge
    help: str
    read: Callable[[], Iterable[tuple[dict[str, str], float]]]

    def collect(self) -> list[tuple[Labels, float]]:
        return [(tuple(sorted(labels.items())), value) for labels, value in self.read()]


class Metrics:
    """All metrics of a process, in order of declaration."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def reading(
        self, name: str, kind: str, help: str, read: Callable[[], Iterable[tuple[dict[str, str], float]]]
    ) -> None:
        """A metric whose samples are read when somebody asks."""
        self._metrics[name] = Metric(name, kind, help, read)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics.values())

    def text(self) -> str:
        lines = []
        for metric in self._metrics.values():
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            for labels, value in metric.collect():
                named = ",".join(f'{name}="{_escape(text)}"' for name, text in labels)
                sample = f"{metric.name}{{{named}}}" if named else metric.name
                lines.append(f"{sample} {_number(value)}")
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Every digit of it: of a counter that is rounded, no rate can be told.

    >>> _number(12345678.0), _number(0.25), _number(float("nan"))
    ('12345678', '0.25', 'NaN')
    """
    exact = float(value)
    if not math.isfinite(exact):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(exact, "NaN")
    return str(int(exact)) if exact.is_integer() else repr(exact)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def configure_logging(process: str, *, debug: bool = False) -> None:
    """Lines on standard error: time, level, process, logger, message."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
