"""Deployments, ReplicaSets and DaemonSets: defaults, selectors, templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podwire.apiserver.kinds import Strategy
from podwire.apiserver.metadata import labels_valid
from podwire.apiserver.selectors import match
from podwire.apiserver.status import FieldError, required, unsupported
from podwire.apiserver.strategies.pods import default_spec, spec_valid
from podwire.apiserver.strategies.selectors import selector_valid

Object = dict[str, Any]


class _Workload(Strategy):
    generation = True

    def default(self, body: Object) -> None:
        spec = body.get("spec") or {}
        template = spec.get("template")
        if template:
            template.setdefault("metadata", {})
            default_spec(template.setdefault("spec", {}))

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        spec = body.get("spec")
        if not spec:
            yield required("spec")
            return
        selector, template = spec.get("selector"), spec.get("template")
        if not selector:
            yield required("spec.selector")
        if not template:
            yield required("spec.template")
            return
        yield from selector_valid("spec.selector", selector)
        labels = template["metadata"].get("labels") or {}
        yield from labels_valid("spec.template.labels", labels)
        if selector and not match(selector, labels):
            detail = "`selector` does not match template `labels`"
            yield FieldError("spec.template.metadata.labels", detail, value=str(labels))
        if not template["spec"].get("containers"):
            yield required("spec.template.spec.containers")
            return
        yield from spec_valid(template["spec"], "spec.template.spec")
        policy = template["spec"].get("restartPolicy", "Always")
        if policy != "Always":
            yield unsupported("spec.template.spec.restartPolicy", policy, ["Always"])
        if old is not None and old["spec"].get("selector") != selector:
            yield FieldError("spec.selector", "field is immutable", value=str(selector))


class Deployments(_Workload):
    def default(self, body: Object) -> None:
        super().default(body)
        spec = body.get("spec") or {}
        spec["strategy"] = strategy = spec.get("strategy") or {}
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            steps = strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            steps.setdefault("maxUnavailable", "25%")
            steps.setdefault("maxSurge", "25%")

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        yield from super().validate(body, old)
        strategy = (body.get("spec") or {}).get("strategy") or {}
        steps = strategy.get("rollingUpdate")
        if strategy.get("type") == "Recreate" and steps:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            yield FieldError("spec.strategy.rollingUpdate", detail, reason="FieldValueForbidden")
        elif steps:
            yield from steps_valid("spec.strategy.rollingUpdate", steps)


class ReplicaSets(_Workload):
    pass


class DaemonSets(_Workload):
    def default(self, body: Object) -> None:
        super().default(body)
        spec = body.get("spec") or {}
        spec["updateStrategy"] = strategy = spec.get("updateStrategy") or {}
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            steps = strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            steps.setdefault("maxUnavailable", 1)
            steps.setdefault("maxSurge", 0)

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        yield from super().validate(body, old)
        steps = ((body.get("spec") or {}).get("updateStrategy") or {}).get("rollingUpdate")
        if steps:
            yield from steps_valid("spec.updateStrategy.rollingUpdate", steps)


def steps_valid(path: str, steps: Object) -> Iterator[FieldError]:
    """maxSurge and maxUnavailable: numbers or percentages, not both zero."""
    for name in ("maxSurge", "maxUnavailable"):
        value = steps.get(name)
        percent = isinstance(value, str) and value.endswith("%") and value[:-1].isdigit()
        if value is not None and not percent and not (isinstance(value, int) and value >= 0):
            yield FieldError(
                f"{path}.{name}", "must be a whole number or a percentage (e.g. '5%')", value=value
            )
            return
    if all(share(steps.get(name), 100) == 0 for name in ("maxSurge", "maxUnavailable")):
        yield FieldError(f"{path}.maxUnavailable", "may not be 0 when `maxSurge` is 0", value=0)


def share(value: Any, total: int, *, up: bool = False) -> int:
    """A number or a percentage of `total`."""
    if isinstance(value, str) and value.endswith("%"):
        parts = int(value[:-1]) * total
        return -(-parts // 100) if up else parts // 100
    return int(value or 0)
