"""Printers of GetFlows responses: one class for each form of `hubble observe -o`."""

from __future__ import annotations

import json
import sys
from typing import Any

from podwire.api import flow_pb2
from podwire.cli import hubble_text as text
from podwire.cli.hubble_text import Style

SEPARATOR = "------------"
FAILED_STATES = (2, 4)  # NODE_UNAVAILABLE, NODE_ERROR: the others are told only to debuggers
NAMES_LENGTH = 50


class Printer:
    """Writes responses to standard output; what is wrong with nodes to standard error."""

    def __init__(self, style: Style, *, follow: bool, silent: bool) -> None:
        self.style = style
        self._silent = silent
        self._flush = follow

    def write(self, response: Any) -> None:
        match response.WhichOneof("response_types"):
            case "flow":
                self.flow(response)
            case "lost_events":
                self.lost(response)
            case "node_status":
                if response.node_status.state_change in FAILED_STATES and not self._silent:
                    self.node_status(response)
        if self._flush:
            sys.stdout.flush()

    def flow(self, response: Any) -> None:
        raise NotImplementedError

    def lost(self, response: Any) -> None:
        raise NotImplementedError

    def node_status(self, response: Any) -> None:
        status = response.node_status
        names = _joined(status.node_names)
        prefix = f"{self.style.time(response.time)} [{text.escape(response.node_name)}]"
        if status.state_change == 2:
            told = f"{len(status.node_names)} nodes are unavailable: {names}"
        else:
            message = json.dumps(status.message, ensure_ascii=False)
            told = f"Error {text.escape(message)} on {len(status.node_names)} nodes: {names}"
        sys.stderr.write(f"{prefix}: {told}\n")

    def close(self) -> None:
        """Write what is still held back."""


class Compact(Printer):
    def flow(self, response: Any) -> None:
        flow, style = response.flow, self.style
        ends = list(text.hosts(flow, style))
        identities = [
            text.identity(getattr(flow, side).identity, style) for side in ("source", "destination")
        ]
        arrow = "<>"
        if flow.HasField("is_reply"):
            arrow = "<-" if flow.is_reply.value else "->"
            if flow.is_reply.value:
                ends.reverse()
                identities.reverse()
        node = f" [{text.escape(flow.node_name)}]" if style.node else ""
        because = f" BECAUSE {text.because(flow)}" if style.because else ""
        sys.stdout.write(
            f"{style.time(flow.time)}{node}: {ends[0]} {identities[0]} {arrow} {ends[1]} {identities[1]} "
            f"{text.flow_type(flow)} {text.verdict(flow, style)} ({text.summary(flow, style)}){because}\n"
        )

    def lost(self, response: Any) -> None:
        lost = response.lost_events
        sys.stdout.write(
            f"{self.style.time(response.time)} EVENTS LOST: {_source(lost)} "
            f"CPU({lost.cpu.value}) {lost.num_events_lost}{self._span(lost)}\n"
        )

    def _span(self, lost: Any) -> str:
        return _span(lost, self.style)


class Dict(Printer):
    def __init__(self, style: Style, *, follow: bool, silent: bool) -> None:
        super().__init__(style, follow=follow, silent=silent)
        self._lines = 0

    def flow(self, response: Any) -> None:
        flow, style = response.flow, self.style
        source, destination = text.hosts(flow, style)
        pairs = [("TIMESTAMP", style.time(flow.time))]
        if style.node:
            pairs.append(("NODE", text.escape(flow.node_name)))
        pairs += [("SOURCE", source), ("DESTINATION", destination), ("TYPE", text.flow_type(flow))]
        pairs += [("VERDICT", text.verdict(flow, style)), ("SUMMARY", text.summary(flow, style))]
        if style.because:
            pairs.append(("BECAUSE", text.because(flow)))
        self._pairs(pairs)

    def lost(self, response: Any) -> None:
        lost = response.lost_events
        pairs = [("TIMESTAMP", self.style.time(response.time))]
        if self.style.node:
            pairs.append(("NODE", text.escape(response.node_name) or "-"))
        pairs += [("SOURCE", _source(lost)), ("TYPE", "EVENTS LOST"), ("VERDICT", "-")]
        self._pairs([*pairs, ("SUMMARY", _lost_summary(lost, self.style))])

    def _pairs(self, pairs: list[tuple[str, str]]) -> None:
        if self._lines:
            sys.stdout.write(SEPARATOR + "\n")
        self._lines += 1
        sys.stdout.write("".join(f"{name:>11}: {value}\n" for name, value in pairs))


class Table(Printer):
    def __init__(self, style: Style, *, follow: bool, silent: bool) -> None:
        super().__init__(style, follow=follow, silent=silent)
        style.colour = False
        self._rows: list[list[str]] = []

    def flow(self, response: Any) -> None:
        flow, style = response.flow, self.style
        node = [text.escape(flow.node_name)] if style.node else []
        because = [text.because(flow)] if style.because else []
        self._row(
            style.time(flow.time),
            *node,
            *text.hosts(flow, style),
            text.flow_type(flow),
            text.verdict(flow, style),
            text.summary(flow, style),
            *because,
        )

    def lost(self, response: Any) -> None:
        lost = response.lost_events
        node = [text.escape(response.node_name) or "-"] if self.style.node else []
        because = ["-"] if self.style.because else []
        cells = [_source(lost), "-", "EVENTS LOST", "-", _lost_summary(lost, self.style), *because]
        self._row(self.style.time(response.time), *node, *cells)

    def _row(self, *cells: str) -> None:
        if not self._rows:
            node = ["NODE"] if self.style.node else []
            because = ["BECAUSE"] if self.style.because else []
            self._rows.append(
                ["TIMESTAMP", *node, "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY", *because]
            )
        self._rows.append(list(cells))

    def close(self) -> None:
        text.table(self._rows, sys.stdout)


class Json(Printer):
    def flow(self, response: Any) -> None:
        sys.stdout.write(text.as_json(response) + "\n")

    lost = flow

    def node_status(self, response: Any) -> None:
        sys.stderr.write(text.as_json(response) + "\n")


FORMS: dict[str, type[Printer]] = {
    "compact": Compact,
    "dict": Dict,
    "json": Json,
    "jsonpb": Json,
    "table": Table,
    "tab": Table,
}


def _source(lost: Any) -> str:
    names = flow_pb2.LostEventSource
    return str(names.Name(lost.source)) if lost.source in names.values() else str(lost.source)


def _span(lost: Any, style: Style) -> str:
    if not (lost.HasField("first") and lost.HasField("last")):
        return ""
    return f" (first: {style.time(lost.first)}, last: {style.time(lost.last)})"


def _lost_summary(lost: Any, style: Style) -> str:
    return f"CPU({lost.cpu.value}) - {lost.num_events_lost}{_span(lost, style)}"


def _joined(names: Any) -> str:
    """Names up to a length, and how many more there are."""
    length, end = 0, len(names)
    for index, name in enumerate(names):
        length += len(name) + 2
        if length > NAMES_LENGTH and index > 0:
            end = index
            break
    more = len(names) - end
    joined = text.escape(", ".join(names[:end]))
    return f"{joined} (and {more} more)" if more else joined
