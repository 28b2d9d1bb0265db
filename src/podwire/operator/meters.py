"""The operator's metrics: read from its queues when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from podwire.base.telemetry import Metrics
from podwire.kube.lease import Election
from podwire.operator.controllers import Controllers, Work

Samples = Iterable[tuple[dict[str, str], float]]


def declare(metrics: Metrics, election: Election, running: Callable[[], Controllers | None]) -> None:
    """`running`: the controllers of the present term. Counters begin anew with each."""

    def outcomes() -> Samples:
        controllers = running()
        for work in controllers.works if controllers is not None else ():
            yield {"controller": work.controller.name, "outcome": "done"}, work.done
            yield {"controller": work.controller.name, "outcome": "failed"}, work.failed

    def objects() -> Samples:
        controllers = running()
        for resource, places in controllers.objects.items() if controllers is not None else ():
            yield {"resource": resource.plural}, len(places)

    metrics.reading(
        "podwire_operator_leader",
        "gauge",
        "Whether this operator leads (1) or waits (0)",
        lambda: [({}, float(election.leads))],
    )
    metrics.reading(
        "podwire_operator_terms_total",
        "counter",
        "How often this operator began to lead",
        lambda: [({}, election.terms)],
    )
    metrics.reading("podwire_operator_objects", "gauge", "Objects the operator follows, by resource", objects)
    metrics.reading(
        "podwire_operator_reconciles_total",
        "counter",
        "Keys of a controller that were brought in order, or failed",
        outcomes,
    )
    _declare_queues(metrics, running)


def _declare_queues(metrics: Metrics, running: Callable[[], Controllers | None]) -> None:
    """How much waits, of each controller."""

    def of_each(value: Callable[[Work], float]) -> Samples:
        controllers = running()
        for work in controllers.works if controllers is not None else ():
            yield {"controller": work.controller.name}, value(work)

    metrics.reading(
        "podwire_operator_queue_added_total",
        "counter",
        "Keys that were added to a controller's queue",
        lambda: of_each(lambda work: work.queue.added),
    )
    metrics.reading(
        "podwire_operator_queue_retried_total",
        "counter",
        "Keys that were due again because they had failed",
        lambda: of_each(lambda work: work.queue.retried),
    )
    metrics.reading(
        "podwire_operator_queue_depth",
        "gauge",
        "Keys that are due in a controller's queue",
        lambda: of_each(lambda work: len(work.queue)),
    )
    metrics.reading(
        "podwire_operator_queue_failing",
        "gauge",
        "Keys of a controller whose last try failed",
        lambda: of_each(lambda work: work.queue.failing),
    )
    metrics.reading(
        "podwire_operator_controller_synced",
        "gauge",
        "Whether a controller knows all that it follows; it does not act before",
        lambda: of_each(lambda work: float(not work.unknown)),
    )
