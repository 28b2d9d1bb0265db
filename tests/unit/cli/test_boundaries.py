"""Values out of range, and failures nobody foresaw: one sentence, never a traceback."""

from __future__ import annotations

from typing import Any

import click
import pytest

from podwire import cli
from podwire.cli.hubble import FILTERS

HUGE = "9" * 24
OUT_OF_RANGE = [
    ("--last", HUGE),
    ("--first", HUGE),
    ("--last", "9" * 5000),
    ("--identity", "99999999999"),
    ("--from-identity", "9" * 5000),
    ("--type", "99999999999999"),
    ("--type", "trace:99999999999"),
    ("--type", "²"),
    ("--ip-trace-id", HUGE),
    ("--ip-version", "7"),
    ("--ip-version", "x"),
    ("--since", "99999999999999999999h"),
    ("--until", "10000000000h"),
    ("--since", "9" * 400 + "h"),
    ("--until", "99999-01-01"),
    ("--denylist", "null"),
    ("--denylist", "[]"),
    ("--allowlist", "{" * 2),
    ("--denylist", "1"),
    ("--allowlist", '{"nosuch":1}'),
    ("--allowlist", '{"source_identity":[99999999999]}'),
    ("--allowlist", "[" * 100_000),
    ("--timeout", HUGE + "h"),
    ("--request-timeout", HUGE + "h"),
]


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and what was said on standard error."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value"), OUT_OF_RANGE, ids=lambda text: text[:24])
def test_what_no_request_can_hold_is_refused_with_its_flag(
    capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    # The server is never asked: there is none.
    code, said = ended(capsys, "hubble", "observe", flag, value, "--server", "unix:///nonexistent")
    assert code == 2
    assert flag in said
    assert "Traceback" not in said and "failed unexpectedly" not in said
    sentences = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1


@pytest.mark.parametrize("value", ["", HUGE, "-1", "\udcff", "²", "a/b/c", ":", "9" * 5000, "\x00"])
def test_no_filter_fails_unexpectedly(capsys: pytest.CaptureFixture[str], value: str) -> None:
    """Each flag with each odd value is taken or refused."""
    for name, _, help in FILTERS:
        words = [f"--{name}"] if help.startswith("*") else [f"--{name}", value]
        code, said = ended(capsys, "hubble", "observe", *words, "--print-raw-filters")
        assert code in (0, 2), (name, said)
        assert "unexpectedly" not in said, (name, said)


def test_ip_versions_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("none", "v4", "6", "IPv6"):
        assert ended(capsys, "hubble", "observe", "--ip-version", value, "--print-raw-filters")[0] == 0


def test_a_failure_nobody_foresaw_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def broken() -> None:
        raise KeyError("first line\nsecond line")

    def found(self: Any, context: click.Context, name: str) -> click.Command:
        return broken

    monkeypatch.setattr(cli.Lazy, "get_command", found)
    code, said = ended(capsys, "status")
    assert code == 1
    assert said.startswith("Error: podwire failed unexpectedly: KeyError: ")
    assert "podwire --debug status" in said and "Traceback" not in said
    with pytest.raises(KeyError):
        cli.main(["--debug", "status"])


@pytest.mark.parametrize("command", [("sandbox", "up"), ("demo",)], ids=" ".join)
@pytest.mark.parametrize("seconds", ["nan", "-nan", "inf", "0", "-1", "1e9", "soon", ""])
def test_a_limit_that_is_no_time_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    seconds: str,
) -> None:
    code, said = ended(capsys, *command, "--timeout", seconds)
    assert code == 2
    assert "--timeout" in said
    if seconds:  # an empty variable is one that is not set
        monkeypatch.setenv("PODWIRE_UP_TIMEOUT", seconds)
        code, said = ended(capsys, *command)
        assert code == 2
        assert "--timeout" in said
