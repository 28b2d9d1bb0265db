"""How commands print: one table printer and JSON, for all of them.

What is printed may come from pods, labels and DNS names, so nothing of it may steer a terminal:
control characters are shown as ``\\x1b`` and the like.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

PAGE = 1000  # lines of a table that are aligned at once
GAP = "   "  # between columns, as Cilium's lists have it

format_option: Callable[[Any], Any] = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="how to print it",
)


def safe(text: str) -> str:
    """`text` without anything a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _shown(one) for one in text)


def _shown(character: str) -> str:
    number = ord(character)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def cell(value: Any) -> str:
    """One value as text; a list has a comma between its items."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return " ".join(
                f"{safe(str(key))}={cell(one)}" for key, one in value.items() if one not in ("", None)
            )
        case list() | tuple():
            return ", ".join(map(cell, value))
        case _:
            return safe(str(value))


def lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A heading and rows, aligned. A list in a cell takes a line for each item, as Cilium prints labels."""
    table = [list(columns), *(line for row in rows for line in _lines_of(row))]
    return _aligned(table, [0] * len(columns))


def _lines_of(row: Sequence[Any]) -> list[list[str]]:
    cells = [
        [cell(one) for one in value] or [""] if isinstance(value, list) else [cell(value)] for value in row
    ]
    return [
        [one[index] if index < len(one) else "" for one in cells] for index in range(max(map(len, cells)))
    ]


def _aligned(table: list[list[str]], widths: list[int]) -> list[str]:
    """The lines as text; `widths` become what they need at least."""
    widths[:] = [
        max(width, *map(_width, column))
        for width, column in zip(widths, zip(*table, strict=True), strict=True)
    ]
    return [
        GAP.join(
            text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def _width(text: str) -> int:
    """Columns a terminal uses for it."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def show(output: str, value: Any, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """`value` as JSON or `rows` as a table, as `output` says."""
    if output == "json":
        as_json(value)
    else:
        click.echo("\n".join(lines(columns, rows)))


def show_items(
    output: str, items: Iterable[bytes], columns: Sequence[str], row: Callable[[Any], Sequence[Any]]
) -> None:
    """Items of a list, each as JSON, as they come: however many there are, few are in memory. As JSON
    they are one a line; a table's columns become wider where later rows need it."""
    write = sys.stdout.write
    if output == "json":
        before = "[\n"
        for item in items:
            write(before + _ascii(item))
            before = ",\n"
        write("[]\n" if before == "[\n" else "\n]\n")
        return
    widths, page = [0] * len(columns), [list(columns)]
    for item in items:
        page += _lines_of(row(json.loads(item)))
        if len(page) > PAGE:
            write("\n".join(_aligned(page, widths)) + "\n")
            page = []
    if page:
        write("\n".join(_aligned(page, widths)) + "\n")


def _ascii(item: bytes) -> str:
    """As `as_json` would: nothing in it can steer a terminal."""
    if item.isascii() and b"\x7f" not in item:
        return item.decode("ascii")
    return json.dumps(json.loads(item))


def as_json(value: Any) -> None:
    """Indented, ASCII only: nothing in it can steer a terminal."""
    click.echo(json.dumps(value, indent=2))


def say(text: str) -> None:
    """A line, made safe."""
    click.echo(safe(text))


def warn(text: str) -> None:
    """A line on standard error, made safe."""
    click.echo(safe(text), err=True)
