"""Filters of what the maps hold: what is none is named, whoever asks."""

from __future__ import annotations

import pytest

from podwire.agent import dumps
from podwire.base.errors import InvalidObject


@pytest.mark.parametrize(
    ("name", "query", "named"),
    [
        ("ct", {"port": "65536"}, "port"),
        ("ct", {"port": "-1"}, "port"),
        ("ct", {"port": "²"}, "port"),
        ("ct", {"address": "10.0.0.0/33"}, "address"),
        ("ct", {"address": "nobody"}, "address"),
        ("ct", {"protocol": "256"}, "protocol"),
        ("ct", {"protocol": "quic"}, "protocol"),
        ("ct", {"pod": "a/b/c"}, "pod"),
        ("ct", {"pod": "/c"}, "pod"),
        ("ct", {"endpoint": "five"}, "endpoint"),
        ("ipcache", {"port": "80"}, "port"),
        ("lb", {"endpoint": "5"}, "endpoint"),
    ],
)
def test_a_filter_that_is_none_is_named(name: str, query: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidObject) as refused:
        dumps.read(name, query)
    assert str(refused.value).startswith(f"{named}: ")
