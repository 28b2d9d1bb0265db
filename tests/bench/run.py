"""`make bench`: measure podwire against peers built in the same run, and judge the targets.

    python tests/bench/run.py [--quick] [--only NAME ...] [-o json] [--write]

Sections: paths (latency and throughput against plain kernel paths and kube-proxy's rules),
packets (ns per packet by test run), asked (connections that ask policy again), sockets (connect() to a
random one of many Services), flows (events per second), relay (in front of fifty nodes), dumps (of 65,536
and a million connections), naming (names while tables change), control (sandbox-up, memory, status,
policy), changes (one among very many selectors, policies, peers), services (5,000 × 10 endpoints), start
(an agent's, among 100,000 pods), plumbing (the kernel's own part of attaching a pod). A section that cannot
be measured says why and makes the exit code 1; a target that is not met is a result, not an error.

Everything made is removed on every way out; what kill -9 leaves dies with its holder process.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack

import control
import difference
import external
import policies
import report
import targets
from measure import Pair, Row, paths
from namespaces import BenchError, build
from peers import PEERS, ROUTED_ACROSS, VXLAN_ACROSS, short
from sandboxes import SERVER_OTHER, SERVER_SAME, Sandbox, sandbox


class Run:
    """What the sections are given."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.quick: bool = arguments.quick
        self.only: list[str] = arguments.only
        self.quiet: bool = not sys.stderr.isatty()

    def wanted(self, name: str) -> bool:
        return not self.only or any(name.startswith(part) for part in self.only)

    def tell(self, text: str) -> None:
        """Progress, overwritten on a terminal and absent elsewhere."""
        if not self.quiet:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


Section = Callable[[Run, list[Row], dict[str, str]], None]


def measure_paths(run: Run, rows: list[Row], failures: dict[str, str]) -> None:
    """All peers that are wanted, at once, interleaved; then podwire with more and more services."""
    with ExitStack() as stack:
        pairs: list[Pair] = []
        for name, make in PEERS.items():
            if pairs and not (run.wanted("paths") or run.wanted(name)):
                continue
            run.tell(f"building {name}")
            try:
                peer = make()
            except BenchError as error:
                if not pairs:
                    raise  # without the first there is nothing to compare with
                failures[name] = str(error)
                continue
            stack.callback(peer.close)
            pairs.append(Pair(peer, pairs[0].peer if pairs else peer))
        own = None
        if run.wanted("paths") or run.wanted("podwire"):
            try:
                own = podwire_pairs(run, stack, pairs)
            except BenchError as error:
                failures["podwire"] = str(error)
        rows += paths(pairs, quick=run.quick, tell=run.tell)
        if own is not None:
            try:
                measure_services(run, own, rows)
            except BenchError as error:
                failures["podwire service"] = str(error)


def podwire_pairs(run: Run, stack: ExitStack, pairs: list[Pair]) -> Sandbox:
    """Sandboxes with both routings; their paths are compared with what the kernel has for the same way."""
    base = pairs[0].peer
    run.tell("bringing up sandboxes")
    native = stack.enter_context(sandbox("native"))
    tunnel = stack.enter_context(sandbox("tunnel", routing="tunnel"))
    pairs.append(Pair(native.peer("podwire same node", SERVER_SAME), base))
    made = {pair.peer.name: pair.peer for pair in pairs}
    for own, name, plain in (
        (native, "podwire other node", ROUTED_ACROSS),
        (tunnel, "podwire other node, VXLAN", VXLAN_ACROSS),
    ):
        pairs.append(Pair(own.peer(name, SERVER_OTHER), made.get(plain, base)))
    return native


def measure_services(run: Run, own: Sandbox, rows: list[Row]) -> None:
    """A ClusterIP against the same pods without it, at 1, 1k and 10k services."""
    direct = own.peer("podwire same node", SERVER_SAME)
    for count in (1, 1000) if run.quick else (1, 1000, 10000):
        run.tell(f"creating {count} services")
        own.have_services(count)
        peer = own.service_peer(f"podwire service {short(count)}")
        rows += paths([Pair(peer, direct)], quick=run.quick, tell=run.tell)


def measure_control(run: Run, rows: list[Row], failures: dict[str, str]) -> None:
    rows += policies.rows(quick=run.quick)
    rows += control.rows(quick=run.quick, tell=run.tell)


def measure_changes(run: Run, rows: list[Row], failures: dict[str, str]) -> None:
    run.tell("one change among many selectors, policies and peers")
    rows += difference.rows(quick=run.quick)


def measure_script(name: str) -> Section:
    def measure(run: Run, rows: list[Row], failures: dict[str, str]) -> None:
        run.tell(name)
        rows += external.rows(name)

    return measure


SECTIONS: dict[str, Section] = {
    "paths": measure_paths,
    "control": measure_control,
    "changes": measure_changes,
    **{name: measure_script(name) for name in external.SCRIPTS},
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py", description="measure podwire against its peers")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a section or a peer; may be repeated"
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--write", action="store_true", help=f"write {report.PAGE.name} in docs/reference")
    options = parser.parse_args(arguments)
    names = [*SECTIONS, *PEERS, "podwire"]
    for wanted in options.only:
        if not any(name.startswith(wanted) for name in names):
            parser.error(f"--only {wanted}: there is no such section or peer; there are: {', '.join(names)}")
    if os.geteuid() != 0:
        print("The benchmark makes network namespaces: run it as root (sudo make bench).", file=sys.stderr)
        return 1
    os.nice(-20)  # for all that is started from here: what else the machine does should not count
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return _measure(Run(options), options)


def _measure(run: Run, options: argparse.Namespace) -> int:
    rows: list[Row] = []
    failures: dict[str, str] = {}
    build()
    chosen = [name for name in SECTIONS if _has(run, name)]
    for name in chosen:
        try:
            SECTIONS[name](run, rows, failures)
        except BenchError as error:
            failures[name] = str(error)
    run.tell("")
    verdicts = targets.judge(rows, failures, chosen)
    if options.output == "json":
        print(report.as_json(rows, verdicts, failures))
    else:
        _print(rows, verdicts, failures)
    if options.write:
        report.PAGE.write_text(report.page(rows, verdicts, failures))
    return 1 if failures else 0


def _has(run: Run, section: str) -> bool:
    """Peers belong to the section `paths`."""
    return run.wanted(section) or (
        section == "paths" and any(run.wanted(name) for name in (*PEERS, "podwire"))
    )


def _print(rows: list[Row], verdicts: list[targets.Verdict], failures: dict[str, str]) -> None:
    about = report.machine()
    print(
        f"podwire bench, {about['date']}, commit {about['commit']}, "
        f"{about['machine']}, kernel {about['kernel']}"
    )
    for table in (report.path_table(rows), report.other_table(rows), report.target_table(verdicts)):
        if len(table) > 1:
            print(f"\n{report.text(table)}")
    for name, why in failures.items():
        print(f"\n{name} was not measured: {why}", file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"The benchmark cannot be built: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head) has enough
