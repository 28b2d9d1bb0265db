"""Time in which one could have heard."""

from __future__ import annotations

from podwire.base.clock import Attention


def test_a_gap_counts_as_much_as_a_regular_look() -> None:
    attention = Attention(10.0)
    assert attention.look(1000.0) == 0.0
    assert attention.look(1005.0) == 5.0
    assert attention.look(9000.0) == 15.0  # stopped for two hours
    assert attention.look(9001.0) == 16.0
    assert attention.look(8000.0) == 16.0  # a clock that goes back counts nothing
    assert attention.look(8002.0) == 18.0
