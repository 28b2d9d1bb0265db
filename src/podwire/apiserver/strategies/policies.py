"""Policies are refused when they are written, not only reported afterwards.

The schema of Cilium's kinds says what a policy may look like; the parser of the agents says what
they can enforce. A policy they could not put into force is not stored: whoever applies it is told the
path of what is wrong or not supported yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podwire.apiserver.status import FieldError
from podwire.base.errors import InvalidObject
from podwire.policy.parse import PARSERS, parse

Object = dict[str, Any]
__all__ = ["PARSERS", "enforceable"]


def enforceable(kind: str, body: Object) -> Iterator[FieldError]:
    """What keeps agents from putting this policy into force; nothing for kinds that are no policies."""
    if kind not in PARSERS:
        return
    try:
        parse({**body, "kind": kind})
    except InvalidObject as error:
        yield FieldError(error.path or "spec", error.problem, reason="FieldValueForbidden")
