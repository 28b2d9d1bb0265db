"""Hubble's filter fields about what stored flows do not have: layer 7, traces, DNS names, translated
sources. They are checked like the others, and match nothing.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from podwire.base.errors import InvalidObject
from podwire.hubble import patterns
from podwire.hubble.filter_fields import Test, nothing, prefix_words
from podwire.hubble.flows import Flows

LONGEST = 1000  # of a regular expression

ACCESS_LOG = 129


def no_address(wanted: Any, _: Any, __: Flows) -> Test:
    for text in wanted:
        prefix_words(text)
    return nothing


def never(_: Any, __: Any, ___: Flows) -> Test:
    return nothing


def no_name(wanted: Any, _: Any, __: Flows) -> Test:
    patterns.names(list(wanted))
    return nothing


def pattern(wanted: Any, _: Any, __: Flows) -> Test:
    """Read and not compiled: it matches nothing whatever it says, and compiling one may take seconds."""
    for text in wanted:
        if len(text) > LONGEST:
            raise InvalidObject("", f"a regular expression of more than {LONGEST} characters")
        try:
            re._parser.parse(text)  # type: ignore[attr-defined]
        except (re.error, RecursionError, OverflowError) as error:
            raise InvalidObject("", f"{text!r} is not a regular expression: {error}") from error
    return nothing


def http(_: Any, whole: Any, __: Flows) -> Test:
    kinds = [each.type for each in whole.event_type]
    if kinds and ACCESS_LOG not in kinds:
        raise InvalidObject("", "filtering by HTTP needs the event types to include l7")
    return nothing


def http_pattern(wanted: Any, whole: Any, flows: Flows) -> Test:
    http(wanted, whole, flows)
    return pattern(wanted, whole, flows)


def http_status(wanted: Any, whole: Any, flows: Flows) -> Test:
    for text in wanted:
        if not re.fullmatch(r"[1-5][0-9]{2}|[1-5][0-9]?\+", text):
            raise InvalidObject("", f"{text!r} is neither a status code nor a prefix such as 5+")
    return http(wanted, whole, flows)


def experimental(wanted: Any, _: Any, __: Flows) -> Test:
    if wanted.cel_expression:
        raise InvalidObject("", "cel_expression is not supported; use the other filters")
    return lambda columns: np.ones(len(columns["time"]), dtype=bool)
