"""Options of `podwire operator`: what is refused names the option, the value and what is allowed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from podwire.base.errors import PodwireError
from podwire.cli.operator import operator


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--pool", "10.0.0.0/8", "8 to 32"),
        ("--pool", "10.0.0.0/8,7", "8 to 32"),
        ("--pool", "10.0.0.0/8,-24", "8 to 32"),
        ("--pool", "fd00::/48,129", "48 to 128"),
        ("--pool", "10.0.0.1/8,24", "has host bits set"),
        ("--pool", "everything,24", "10.0.0.0/8,24"),
        ("--metrics", "9963", "127.0.0.1:9963"),
        ("--metrics", "localhost:9963", "127.0.0.1:9963"),
        ("--metrics", "127.0.0.1:0", "127.0.0.1:9963"),
        ("--metrics", "[::1]:70000", "127.0.0.1:9963"),
        ("--lease-seconds", "0", "1<=x<=3600"),
        ("--identity-grace", "nan", "number of seconds"),
        ("--identity-grace", "0", "0<x"),
        ("--orphan-grace", "-1", "0<x"),
        ("--identity", "", "name"),
        ("--cluster-name", "", "name"),
        ("--cluster-id", "-1", "0<=x<=511"),
        ("--max-connected-clusters", "300", "'255', '511'"),
        ("--lease-namespace", "Kube System", "name"),
    ],
)
def test_values_that_are_none_are_refused(option: str, value: str, says: str) -> None:
    result = CliRunner().invoke(operator, [option, value])
    assert result.exit_code == 2
    assert option in result.output and says in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cluster-id", "256"], "above max-connected-clusters"),
        (["--cluster-id", "5"], "with the cluster-name “default”"),
        (["--cluster-id", "5", "--cluster-name", "x" * 33], "with cluster-id 5"),
        (["--pool", "10.0.0.0/16,24", "--pool", "10.0.0.0/8,24"], "10.0.0.0/16 and 10.0.0.0/8 overlap"),
        (["--pool", "::/0,64"], "more than 2^"),
    ],
)
def test_values_that_do_not_go_together_are_refused(words: list[str], says: str) -> None:
    """Before anything is asked of an API, and by each of several operators."""
    result = CliRunner().invoke(operator, [*words, "--kubeconfig", "/nonexistent"])
    assert isinstance(result.exception, PodwireError) and says in str(result.exception)
