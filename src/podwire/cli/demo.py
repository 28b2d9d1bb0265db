"""`podwire demo`: the first minute with podwire, from nothing to nothing."""

from __future__ import annotations

import time
from typing import Any

import click

from podwire.cli.sandbox import end_by_interrupt
from podwire.cli.seconds import LIMIT

FLOWS = 15


@click.command()
@click.option("--keep", is_flag=True, help="leave the cluster up")
@click.option(
    "--timeout",
    type=LIMIT,
    envvar="PODWIRE_UP_TIMEOUT",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="seconds to wait until nodes and pods are ready",
)
def demo(keep: bool, timeout: float) -> None:
    """Bring up a cluster, try a policy and a service in it, show the flows, remove everything.

    Exits with 1 if any connection did not come out as the policy says.
    """
    from podwire.sandbox import demo as plan
    from podwire.sandbox import lab as labs
    from podwire.sandbox import processes
    from podwire.sandbox.up import down, up

    end_by_interrupt()
    began = time.monotonic()
    plan.remove_leftovers()
    name = plan.name()
    folder = plan.lab()
    click.echo(f"Bringing up two nodes and the pods of {folder.name}: a cluster without containers or a VM")
    up(labs.read(folder), name, processes.work(), timeout=timeout, tell=_step)
    left: list[str] = []
    try:
        click.echo(f"  up in {time.monotonic() - began:.1f} s\n")
        attempts = plan.attempts(name)
        failed = _try(name, attempts)
    finally:
        if keep:
            plan.keep(name)
            click.echo(f"\nThe cluster stays up: podwire sandbox env --name {name}")
        else:
            left = down(name)
            click.echo("\nEverything is removed." if not left else f"\nNot everything is removed: {left[0]}")
    outcome = f"{failed} of {len(attempts)} connections came out otherwise than"
    if not failed:
        outcome = f"All {len(attempts)} connections came out as"
    click.echo(f"{outcome} the policy says. {time.monotonic() - began:.1f} s in all.")
    if failed or left:
        raise SystemExit(1)


def _step(text: str) -> None:
    click.echo(f"  {text}")


def _try(name: str, attempts: Any) -> int:
    """Try all, print the table and the last flows; how many came out otherwise than expected."""
    from podwire.sandbox import connectivity
    from podwire.sandbox.settle import settle

    settle(name)
    click.echo(f"Trying {len(attempts)} connections against the policy of namespace prod\n")
    since = time.time()
    outcomes = connectivity.attempt_all(name, attempts)
    outcomes = connectivity.explained(name, outcomes, since)
    _table(outcomes)
    click.echo(f"\nThe last {FLOWS} flows (podwire hubble observe --because shows more):\n")
    _flows(name, since)
    return sum(not one.as_expected for one in outcomes)


def _table(outcomes: Any) -> None:
    rows = [("FROM", "TO", "EXPECTED", "GOT", "BECAUSE")]
    for one in outcomes:
        attempt = one.attempt
        got = "allowed" if one.reached else f"denied ({one.result})"
        rows.append(
            (
                attempt.pod,
                f"{attempt.shown}:{attempt.port}/{attempt.protocol.upper()}",
                "allowed" if attempt.expected else "denied",
                got if one.as_expected else f"{got}  <-- NOT AS EXPECTED",
                one.because or "no flow tells",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo(
            "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def _flows(name: str, since: float) -> None:
    from podwire.cli.hubble_print import Compact
    from podwire.cli.hubble_text import Style
    from podwire.sandbox import connectivity
    from podwire.sandbox import demo as plan

    printer = Compact(Style(because=True), follow=False, silent=True)
    shown = [one for one in connectivity.read_flows(name, since) if plan.telling(one.flow)]
    for response in shown[-FLOWS:]:
        printer.write(response)
    printer.close()
