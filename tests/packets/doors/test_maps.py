"""Maps as typed mappings, in the kernel."""

from __future__ import annotations

import os

import pytest

from podwire.abi.structs import MetricKey, MetricValue, PrefixKey
from podwire.base import addresses
from podwire.base.errors import KernelError, MapFull
from podwire.bpf.map import ADDRESS, U32, Map, MapType, raw

pytestmark = pytest.mark.kernel


def test_one_entry_comes_back_as_it_went_in() -> None:
    with Map.create(MapType.HASH, "one", ADDRESS, U32, 8) as table:
        table["10.0.0.1"] = 7
        table["fd00::1"] = 8
        assert table["10.0.0.1"] == 7
        assert table.get("10.0.0.2") is None
        assert "fd00::1" in table
        assert dict(table.items()) == {"10.0.0.1": 7, "fd00::1": 8}
        assert sorted(table) == ["10.0.0.1", "fd00::1"]
        del table["10.0.0.1"]
        assert not table.delete("10.0.0.1")
        with pytest.raises(KeyError):
            del table["10.0.0.1"]
        with pytest.raises(KeyError):
            table["10.0.0.1"]


def test_many_entries_in_batches() -> None:
    with Map.create(MapType.HASH, "many", U32, U32, 10_000) as table:
        assert table.put_many((n, n * 2) for n in range(10_000)) == 10_000
        assert dict(table.items()) == {n: n * 2 for n in range(10_000)}
        # Some are missing: the rest goes all the same.
        assert table.delete_many(range(5_000, 15_000)) == 5_000
        assert len(table) == 5_000
        assert table.clear() == 5_000
        assert dict(table.items()) == {}


def test_a_full_map_says_so_and_keeps_what_it_has() -> None:
    with Map.create(MapType.HASH, "small", U32, U32, 4) as table:
        with pytest.raises(MapFull) as full:
            table.put_many((n, n) for n in range(10))
        assert (full.value.name, full.value.capacity) == ("small", 4)
        assert len(table) == 4
        with pytest.raises(MapFull):
            table[99] = 1
    with Map.create(MapType.LPM_TRIE, "trie", PrefixKey, U32, 1) as trie:
        trie[PrefixKey(96 + 8, addresses.pack("10.0.0.0"))] = 1
        with pytest.raises(MapFull):
            trie[PrefixKey(96 + 16, addresses.pack("10.1.0.0"))] = 2


def test_a_prefix_is_found_by_an_address_in_it() -> None:
    with Map.create(MapType.LPM_TRIE, "trie", PrefixKey, U32, 100) as trie:
        trie.put_many((PrefixKey(*addresses.pack_prefix(f"10.{n}.0.0/16")), n) for n in range(50))
        trie[PrefixKey(*addresses.pack_prefix("10.0.0.0/8"))] = 1000
        assert trie.get(PrefixKey(128, addresses.pack("10.7.8.9"))) == 7
        assert trie.get(PrefixKey(128, addresses.pack("10.99.8.9"))) == 1000
        assert trie.get(PrefixKey(128, addresses.pack("fd00::1"))) is None
        assert len(trie) == 51
        assert (
            trie.delete_many([PrefixKey(*addresses.pack_prefix(f"10.{n}.0.0/16")) for n in range(50)]) == 50
        )


def test_every_cpu_has_its_value() -> None:
    with Map.create(MapType.PERCPU_HASH, "percpu", MetricKey, MetricValue, 8) as table:
        table[MetricKey(133, 1)] = MetricValue(2, 128)
        values = table.per_cpu(MetricKey(133, 1))
        assert values == [MetricValue(2, 128)] * table.cpus
        assert dict(table.items_per_cpu()) == {MetricKey(133, 1): values}


def test_an_array_has_no_batch_delete_but_reads_whole() -> None:
    with Map.create(MapType.ARRAY, "array", U32, U32, 5) as table:
        table.put_many((n, n + 1) for n in range(5))
        assert dict(table.items()) == {n: n + 1 for n in range(5)}
        with pytest.raises(KernelError):
            table.delete(1)


def test_a_pinned_map_is_opened_again(pins: str) -> None:
    path = os.path.join(pins, "kept")
    with Map.create(MapType.HASH, "kept", U32, U32, 4) as table:
        table[1] = 2
        table.pin(path)
    with Map.open(path, U32, U32) as again:
        assert dict(again.items()) == {1: 2}
    with pytest.raises(ValueError, match="keys of 4"):
        Map.open(path, raw(8), U32)
    with pytest.raises(KernelError, match="open pinned"):
        Map.open(path + "-not", U32, U32)
