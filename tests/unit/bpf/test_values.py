"""What of the door needs no kernel: codecs, contexts, differences."""

from __future__ import annotations

import pytest

from podwire.abi import dtypes, structs
from podwire.base import addresses
from podwire.bpf.library import MapInfo
from podwire.bpf.map import ADDRESS, U32, U64, codec, raw
from podwire.bpf.object import IncompatibleMaps, SkbContext, differences


def test_codecs_give_back_what_they_took() -> None:
    assert U32.unpack(U32.pack(7)) == 7
    assert len(U64.pack(7)) == 8
    assert ADDRESS.unpack(ADDRESS.pack("10.0.0.1")) == "10.0.0.1"
    assert raw(3).pack(b"abc") == b"abc"
    key = structs.FrontendKey(addresses.pack("fd00::1"), 443, 6)
    packed = codec(structs.FrontendKey)
    assert packed.unpack(packed.pack(key)) == key
    assert packed.size == 20
    with pytest.raises(OverflowError):
        U32.pack(1 << 32)


def test_ports_of_keys_are_in_network_order() -> None:
    assert structs.FrontendKey(port=0x1234).pack()[16:18] == b"\x12\x34"
    assert structs.Event(source_port=0x1234).pack()[structs.Event.OFFSETS["source_port"] :][:2] == b"\x34\x12"


@pytest.mark.parametrize("name", [name for name in dir(dtypes) if name.isupper()])
def test_structs_and_dtypes_agree(name: str) -> None:
    dtype = getattr(dtypes, name)
    struct = next(
        one
        for one in vars(structs).values()
        if isinstance(one, type) and getattr(one, "NAME", "") == name.lower()
    )
    assert dtype.itemsize == struct.SIZE == struct.LAYOUT.size
    for field in dtype.names:
        assert dtype.fields[field][1] == struct.OFFSETS[field]
    assert struct.unpack(struct().pack()) == struct()


def test_a_context_of_a_test_run() -> None:
    context = SkbContext(mark=1, ifindex=3, cb=(1, 2, 3, 4, 5), gso_size=1400)
    assert SkbContext.unpack(context.pack()) == context
    assert context.pack()[8:12] == U32.pack(1)
    assert context.pack()[40:44] == U32.pack(3)


def test_differences_name_each_field_and_maps_may_grow() -> None:
    declared = MapInfo(0, 1, 4, 8, 100, 0, "table")
    assert differences(declared, MapInfo(5, 1, 4, 8, 200, 0, "table")) == []
    found = differences(declared, MapInfo(5, 9, 4, 16, 50, 1, "table"))
    assert [(one.field, one.wanted, one.found) for one in found] == [
        ("type", 1, 9),
        ("value_size", 8, 16),
        ("max_entries", 100, 50),
        ("flags", 0, 1),
    ]
    assert "table: value_size is 16, not 8" in str(IncompatibleMaps(found))
