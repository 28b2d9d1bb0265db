"""Records to columns: numbers as Hubble's, addresses, times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from podwire.abi.enums import EventFlags
from podwire.base import addresses
from podwire.hubble import decode
from podwire.model.flow import Reply, Verdict
from podwire.testing import flows


def decoded(**fields: Any) -> dict[str, Any]:
    record = flows.event(**fields)
    columns = decode.empty(1)
    decode.decode(record, 1_000, columns)
    return {name: column[0] for name, column in columns.items()}


@pytest.mark.parametrize(
    ("fields", "verdict", "reason", "sub", "reply"),
    [
        ({"kind": 1, "reason": 133}, Verdict.DROPPED, 133, 133, Reply.UNKNOWN),
        ({"kind": 1, "reason": 222, "error": 12}, Verdict.DROPPED, 222, 222, Reply.UNKNOWN),
        ({"kind": 4, "point": 0}, Verdict.FORWARDED, 0, 0, Reply.UNKNOWN),
        ({"kind": 4, "point": 10, "flags": 2}, Verdict.FORWARDED, 0, 10, Reply.NO),
        ({"kind": 4, "point": 4, "flags": 6}, Verdict.FORWARDED, 0, 4, Reply.YES),
        ({"kind": 5, "point": 1}, Verdict.FORWARDED, 0, 0, Reply.NO),
        ({"kind": 5, "point": 1, "proxy_port": 9}, Verdict.REDIRECTED, 0, 0, Reply.NO),
        ({"kind": 5, "point": 1, "reason": 133}, Verdict.AUDIT, 0, 0, Reply.NO),
        ({"kind": 5, "point": 2, "reason": 181}, Verdict.DROPPED, 181, 0, Reply.UNKNOWN),
        ({"kind": 5, "point": 2}, Verdict.DROPPED, 133, 0, Reply.UNKNOWN),
        ({"kind": 7, "point": 1}, Verdict.TRACED, 0, 1, Reply.UNKNOWN),
        ({"kind": 7, "point": 4}, Verdict.TRANSLATED, 0, 4, Reply.UNKNOWN),
        ({"kind": 200, "point": 255, "direction": 9}, Verdict.UNKNOWN, 0, 255, Reply.UNKNOWN),
    ],
)
def test_what_happened(fields: dict[str, Any], verdict: int, reason: int, sub: int, reply: int) -> None:
    row = decoded(**fields)
    assert (row["verdict"], row["drop_reason"], row["sub"], row["reply"]) == (verdict, reason, sub, reply)


def test_boot_time_becomes_wall_time() -> None:
    assert decoded(time=234)["time"] == 1_234


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1", "255.255.255.255", "::1", "2001:db8:1:2:3:4:5:6"])
def test_addresses_come_back_as_they_went_in(address: str) -> None:
    row = decoded(source=address, destination="", original=address)
    assert addresses.unpack(decode.address_bytes(row["source_high"], row["source_low"])) == address
    assert addresses.unpack(decode.address_bytes(row["original_high"], row["original_low"])) == address
    assert addresses.unpack(decode.address_bytes(row["destination_high"], row["destination_low"])) == ""
    assert (row["flags"] & EventFlags.IPV6 != 0) == (":" in address)


def test_members_that_are_columns_as_they_are() -> None:
    given = {name: 7 + i for i, name in enumerate(decode.PLAIN) if name not in ("flags", "direction")}
    row = decoded(**given)
    assert {name: row[name] for name in given} == given


def test_decoding_writes_into_the_columns_it_is_given() -> None:
    columns = decode.empty(8)
    part = {name: column[2:5] for name, column in columns.items()}
    decode.decode(flows.joined([flows.event(source_port=port) for port in (1, 2, 3)]), 0, part)
    assert columns["source_port"].tolist() == [0, 0, 1, 2, 3, 0, 0, 0]


def test_the_words_of_an_address_are_its_bytes() -> None:
    raw = bytes(range(16))
    assert decode.address_bytes(*decode.address_words(raw)) == raw
    assert all(isinstance(word, np.uint64) for word in decode.address_words(raw))
