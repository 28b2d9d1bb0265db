"""Every option and argument of every command, given what it cannot be: refused with its name, or taken.

The commands run against an agent in memory and against no Hubble server at all: what reaches the server was
taken, and must be what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from tests.unit.cli.test_boundaries import ended

from podwire.base.errors import InvalidObject, NotFound, UsageError
from podwire.cli import COMMANDS, Lazy, agents, cli, hubble_refusals
from podwire.cli.hubble import observe
from podwire.cli.hubble_filters import PLAIN, SIDED, flags_of

ABSURD = [
    "",
    "-1",
    "nan",
    "inf",
    "0",
    "9" * 30,
    "²",
    "x" * 5000,
    "a b",
    "\x1b[2J",
    "../..",
    "1e9",
    "::1/999",
    "{",
]
FLOW = "11111111-2222-3333-4444-555555555555"
# What these do with text is theirs: a name that nobody has is not found.
FREE = {"match_pattern", "wait_duration"}


def leaves(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*words, name))
    else:
        yield words, command


ALL_COMMANDS = dict(leaves(cli))
# These make things, or become another program, before a wrong value could show.
ASKING = [
    words for words in ALL_COMMANDS if words[0] not in ("sandbox", "demo", "hubble", "monitor", "operator")
]


def test_all_commands_are_looked_at() -> None:
    assert {words[0] for words in ALL_COMMANDS} == set(COMMANDS) == set(Lazy.list_commands(cli, None))  # type: ignore[arg-type]
    assert len(ASKING) > 12


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_an_absurd_value_is_refused_by_name_or_not_found(
    words: tuple[str, ...], node: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    socket = ["--socket", str(node.config.socket)]
    command = ALL_COMMANDS[words]
    needed = [one for one in command.params if isinstance(one, click.Argument) and one.required]
    for option in command.params:
        if getattr(option, "is_flag", False) or option.name in FREE:
            continue
        for value in ABSURD:
            if isinstance(option, click.Argument):
                given = [*socket, "--", value]
            else:
                rest = ["--", *(FLOW if words == ("explain",) else "5" for _ in needed)] if needed else []
                server = [] if option.name == "socket_path" else socket
                given = [option.opts[0], value, *server, *rest]
            code, said = ended(capsys, *words, *given)
            assert "unexpectedly" not in said and "Traceback" not in said, (option.name, value, said)
            assert "\x1b" not in said and len(said) < 1200, (option.name, value)
            if code == 2 and not isinstance(option, click.Argument):
                assert option.opts[0] in said or str(option.name) in said, (option.name, value, said)


REFUSED = [
    (
        "--server",
        ["", "nowhere", "http://x:1", "localhost:0", "localhost:65536", "a b:1", "unix:", "x" * 5000],
    ),
    ("--timeout", ["0s", "-5s", "nan", "5", "", "0h0m", "1y"]),
    ("--request-timeout", ["0s", "-1ms", "inf"]),
    ("--last", ["0", "-1", "nan", ""]),
    ("--first", ["0", "-1", "1.5"]),
    ("--since", ["-5m", "yesterday", "nan"]),
    ("--uuid", ["", "5", "x" * 36]),
    ("--pod", ["", "x" * 5000]),
    ("--namespace", ["", "a/b", "A", "-a", "a" * 64]),
    ("--to-namespace", ["*", "a.b"]),
    ("--interface", [""]),
    ("--output", ["yaml", ""]),
    ("--time-format", ["", "nan"]),
    ("--color", ["purple"]),
    ("--tls-ca-cert-files", ["/nonexistent", "/", "/dev/null"]),
    ("--sandbox", ["nobody-has-this", "../.."]),
]


@pytest.mark.parametrize(("option", "value"), [(one, value) for one, values in REFUSED for value in values])
def test_what_hubble_observe_cannot_do_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUBBLE_SERVER", raising=False)
    server = [] if option in ("--server", "--sandbox") else ["--server", "tls://localhost:1"]
    code, said = ended(capsys, "hubble", "observe", *server, option, value)
    if option == "--sandbox":
        assert code and f"no sandbox {value}" in said
        return
    assert code == 2, said
    assert option in said and "Traceback" not in said
    assert (value[:20] in said) or not value
    assert len(said) < 1000


@pytest.mark.parametrize(
    "words",
    [
        ("--follow", "--until", "5m"),
        ("--since", "5m", "--until", "10m"),
        ("--server", "a:1", "--sandbox", "x"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ended(capsys, "hubble", "observe", *words)
    assert code == 2 and words[-2] in said


@pytest.mark.parametrize(
    "words", [("hubble", "status"), ("hubble", "list", "nodes"), ("hubble", "list", "namespaces")]
)
def test_a_form_is_refused_before_anybody_is_asked(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ended(capsys, *words, "-o", "yaml", "--server", "unix:///nonexistent")
    assert code == 2 and "yaml" in said and "json" in said and "no Hubble server" not in said


# --- which server, which sandbox ------------------------------------------------------------------


def resolved(*words: str) -> str:
    from podwire.cli import hubble_request

    with observe.make_context("observe", list(words)) as context:
        return hubble_request.connection(context.params).server


def test_which_server_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "nodes" / "n1").mkdir(parents=True)
    monkeypatch.setattr(agents.relay_of, "__kwdefaults__", {"sandboxes": tmp_path})
    for name in ("HUBBLE_SERVER", "PODWIRE_SANDBOX"):
        monkeypatch.delenv(name, raising=False)
    assert resolved() == "localhost:4245"
    monkeypatch.setenv("PODWIRE_SANDBOX", "a")
    assert resolved() == f"unix://{tmp_path}/a/hubble.sock"
    assert resolved("--sandbox", "b") == f"unix://{tmp_path}/b/hubble.sock"
    assert resolved("--server", "x:1") == "x:1"
    monkeypatch.setenv("HUBBLE_SERVER", "y:1")
    assert resolved() == "y:1"
    assert resolved("--sandbox", "b") == f"unix://{tmp_path}/b/hubble.sock"
    monkeypatch.delenv("HUBBLE_SERVER")
    monkeypatch.setenv("PODWIRE_SANDBOX", "c")
    with pytest.raises(NotFound, match="sandbox c"):
        resolved()
    with pytest.raises(UsageError, match=r"--server and --sandbox"):
        resolved("--server", "x:1", "--sandbox", "a")


NAMING = {"name", "sandbox"}


def test_every_command_that_takes_a_sandboxs_name_takes_it_from_the_environment() -> None:
    found = 0
    for words, command in ALL_COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option) and option.name in NAMING:
                assert option.envvar == "PODWIRE_SANDBOX", words
                found += 1
        if words[0] == "sandbox" and words[1] != "list":
            assert {one.name for one in command.params} & NAMING, words
    assert found > 25


@pytest.mark.parametrize(
    "words", [("exec", "pod", "--", "true"), ("node", "n1", "--", "true"), ("restart-agent", "n1"), ("env",)]
)
def test_sandbox_commands_obey_the_environment(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODWIRE_SANDBOX", "nobody-has-this")
    code, said = ended(capsys, "sandbox", *words)
    assert code and "nobody-has-this" in said
    code, said = ended(capsys, "sandbox", words[0], "--name", "nor-this", *words[1:])
    assert code and "nor-this" in said and "nobody-has-this" not in said


# --- what the server refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said", "told"),
    [
        (
            ["--from-ip", "10.0.0.0/99"],
            "whitelist[0].source_ip: '10.0.0.0/99' is bad",
            "--from-ip: '10.0.0.0/99' is bad",
        ),
        (["--ip", "x"], "whitelist[1].destination_ip: 'x' is bad", "--ip: 'x' is bad"),
        (["--not", "--port", "0"], "blacklist[0].source_port: '0' is bad", "--not --port: '0' is bad"),
        (
            ["--label", "a=b", "--from-fqdn", "y..", "--to-fqdn", "z"],
            "whitelist[0].source_fqdn: 'y..' is bad",
            "--from-fqdn: 'y..' is bad",
        ),
        (["--namespace", "ab"], "whitelist[0].source_pod: 'ab/' is bad", "--namespace: 'ab/' is bad"),
        (["--allowlist", "{}"], "whitelist[0].uuid: is bad", "--allowlist: uuid: is bad"),
        (["--pod", "a", "--denylist", "{}"], "blacklist[0].uuid: is bad", "--denylist: uuid: is bad"),
        (["--verdict", "DROPPED", "--allowlist", "{}"], "whitelist[1].uuid: no", "--allowlist: uuid: no"),
        (
            ["--field-mask", "x"],
            "field_mask: a flow has no field 'x'",
            "--field-mask: a flow has no field 'x'",
        ),
        ([], "since: is not a valid time", "--since: is not a valid time"),
        (
            [],
            "whitelist: has more than 64 filters",
            "--allowlist and the filters of flags: has more than 64 filters",
        ),
        ([], "the server is tired", "the server is tired"),
    ],
)
def test_a_refusal_names_the_option(words: list[str], said: str, told: str) -> None:
    with observe.make_context("observe", words) as context:
        error = hubble_refusals.told(InvalidObject("", said), context.meta["filters"], context.params)
    assert str(error) == told


def test_every_flag_is_found_by_the_field_it_fills() -> None:
    for flag, (field, _) in PLAIN.items():
        assert flag in flags_of(field)
    for noun, (field, _) in SIDED.items():
        assert {noun, f"from-{noun}"} <= set(flags_of(f"source_{field}"))
        assert {noun, f"to-{noun}"} <= set(flags_of(f"destination_{field}"))
        assert f"to-{noun}" not in flags_of(f"source_{field}")
    assert re.fullmatch(r"[a-z-]+", "".join(flags_of("source_pod")))
