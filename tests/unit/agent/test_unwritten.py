"""Rows that are not in the kernel, as status tells of them."""

from __future__ import annotations

from errno import EPERM

from podwire.agent.node import unwritten
from podwire.base.errors import KernelError, MapFull


def test_the_full_map_is_named_with_what_it_holds_and_what_gives_it_room() -> None:
    full = MapFull("podwire_ipcache", 64)
    # The second row is held back for the first map's sake.
    told = unwritten({("podwire_ipcache", "10.0.0.1/32"): full, ("podwire_policy_peers", 7): full})
    assert told == (
        "map podwire_ipcache is full at 64 entries "
        "(raise ipcache-max or map-growth-max and restart the agent); it holds address → who is behind it"
    )


def test_a_map_whose_size_is_no_option_is_not_to_be_raised() -> None:
    assert unwritten({("podwire_devices", 1): MapFull("podwire_devices", 8)}) == (
        "map podwire_devices is full at 8 entries (its size is fixed); it holds device → pod of this node"
    )


def test_another_error_is_told_as_it_is_whatever_its_words() -> None:
    refused = KernelError("say that map podwire_ipcache is full", EPERM)
    assert unwritten({("podwire_policy", 1): refused}) == str(refused)
