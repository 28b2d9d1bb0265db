"""`podwire`: nouns look, verbs change. Subcommands are imported only when they are used."""

from __future__ import annotations

import importlib
import io
import itertools
import os
import re
import sys

import click

import podwire
from podwire.base.errors import PodwireError

# name → (module, attribute, one line of help); the order is that of `podwire --help`.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("podwire.cli.demo", "demo", "bring up a cluster, try a policy and a service, show the flows"),
    "sandbox": (
        "podwire.cli.sandbox",
        "sandbox",
        "clusters on this machine: up, down, list, env, exec, node",
    ),
    "status": ("podwire.cli.status", "status", "how a node's agent is"),
    "endpoint": ("podwire.cli.endpoint", "endpoint", "endpoints (pods) of a node"),
    "identity": ("podwire.cli.identity", "identity", "security identities"),
    "service": ("podwire.cli.service", "service", "services and their backends"),
    "policy": ("podwire.cli.policy", "policy", "policies in force and their selectors"),
    "bpf": ("podwire.cli.bpf", "bpf", "what the kernel's maps hold"),
    "hubble": ("podwire.cli.hubble", "hubble", "flows: observe, status, list"),
    "explain": ("podwire.cli.explain", "explain", "why a flow was allowed or dropped"),
    "monitor": ("podwire.cli.monitor", "monitor", "events of a node as they come"),
    "metrics": ("podwire.cli.metrics", "metrics", "metrics of a node's agent"),
    "operator": ("podwire.cli.operator", "operator", "what is done once for a whole cluster: controllers"),
    "tables": ("podwire.cli.tables", "tables", "the agent's tables, in walk order"),
}


_WORD = re.compile(r"\S{400,}")  # longer than a path or a name is


class Lazy(click.Group):
    """A group whose commands live in modules of their own, imported when one is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, _, help) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(podwire.__version__, message="podwire %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="show what caused an error")
@click.option("--debug", is_flag=True, help="show the trace of a failure nobody foresaw")
@click.pass_context
def cli(context: click.Context, verbose: bool, debug: bool) -> None:
    """eBPF networking, security and observability for containers."""
    context.obj = {"verbose": verbose, "debug": debug}


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors become one sentence, a hint and an exit code; never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(arguments, prog_name="podwire", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(shortened(said.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except PodwireError as error:
        _tell(error, verbose="-v" in arguments or "--verbose" in arguments)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has left. Nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # The outermost boundary: a mistake of podwire's own is one sentence too, its trace for who asks.
        if "--debug" in itertools.takewhile(lambda word: word.startswith("-"), arguments):
            raise
        _tell(_unforeseen(error, arguments), verbose=False)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _unforeseen(error: Exception, arguments: list[str]) -> PodwireError:
    said = (str(error).splitlines() or [""])[0][:200]
    return PodwireError(
        f"podwire failed unexpectedly: {type(error).__name__}{': ' if said else ''}{said}",
        hint="this is a mistake in podwire; `podwire --debug "
        + " ".join(arguments[:2])
        + " …` shows where it happened",
    )


def _tell(error: PodwireError, *, verbose: bool) -> None:
    from podwire.cli.output import warn  # what failed may be named by a pod, a server, a file

    lines = [f"Error: {error}", *([f"  {error.hint}"] if error.hint else [])]
    cause = error.__cause__
    while verbose and cause is not None:
        lines.append(f"  because: {type(cause).__name__}: {cause}")
        cause = cause.__cause__
    for line in shortened("\n".join(lines)).splitlines():
        warn(line)


def shortened(text: str) -> str:
    """No word of what is told, such as a refused value, fills the screen."""
    return _WORD.sub(lambda word: f"{word[0][:60]}…", text)
