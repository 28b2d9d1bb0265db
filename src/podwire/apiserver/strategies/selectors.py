"""Label selectors inside objects: whether they are well formed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podwire.apiserver.metadata import labels_valid, qualified
from podwire.apiserver.status import FieldError, required

Object = dict[str, Any]


def selector_valid(path: str, selector: Object | None) -> Iterator[FieldError]:
    """metav1.LabelSelector at `path`."""
    if not selector:
        return
    yield from labels_valid(f"{path}.matchLabels", selector.get("matchLabels"))
    for index, term in enumerate(selector.get("matchExpressions") or []):
        place = f"{path}.matchExpressions[{index}]"
        if problem := qualified(str(term.get("key", ""))):
            yield FieldError(f"{place}.key", problem, value=term.get("key"))
        values = term.get("values") or []
        if term.get("operator") in ("In", "NotIn") and not values:
            yield required(f"{place}.values", "must be given when `operator` is 'In' or 'NotIn'")
        if term.get("operator") in ("Exists", "DoesNotExist") and values:
            detail = "may not be given when `operator` is 'Exists' or 'DoesNotExist'"
            yield FieldError(f"{place}.values", detail, reason="FieldValueForbidden")
        if term.get("operator") in ("In", "NotIn"):
            for value in values:
                yield from labels_valid(f"{place}.values", {"any": value})
