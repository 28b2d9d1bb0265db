"""The ring buffer: records in order, across the wrap, with what was lost accounted for."""

from __future__ import annotations

import select
import struct
from collections.abc import Callable

import numpy as np
import pytest

from podwire.bpf.events import Ring
from podwire.bpf.map import U64, Map, MapType, raw
from podwire.bpf.object import Object, ObjectSpec, load

pytestmark = pytest.mark.kernel

EMITTER = """
struct record { __u64 sequence; __u64 twice; __u32 tail[2]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct stats { __u64 emitted; __u64 lost; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct stats);
	__uint(max_entries, 1);
} stats SEC(".maps");

static int emit(struct __sk_buff *skb, int discard)
{
	__u32 zero = 0;
	struct stats *count = bpf_map_lookup_elem(&stats, &zero);
	struct record *record;

	if (!count)
		return 1;
	count->emitted++;
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count->lost++;
		return 1;
	}
	record->sequence = count->emitted;
	record->twice = 2 * count->emitted;
	record->tail[0] = record->tail[1] = 7;
	if (discard)
		bpf_ringbuf_discard(record, 0);
	else
		bpf_ringbuf_submit(record, 0);
	return 0;
}
SEC("tc") int submit(struct __sk_buff *skb) { return emit(skb, 0); }
SEC("tc") int discard(struct __sk_buff *skb) { return emit(skb, 1); }
SEC("tc") int other_size(struct __sk_buff *skb) { __u32 n = 1; return bpf_ringbuf_output(&ring, &n, 4, 0); }
"""
RECORD = np.dtype([("sequence", "u8"), ("twice", "u8"), ("tail", "u4", 2)])
FRAME = bytes(12) + b"\x08\x00" + bytes(46)


@pytest.fixture
def emitter(compile_bpf: Callable[[str], str]) -> Object:
    return load(ObjectSpec(compile_bpf(EMITTER)))


def test_records_come_in_order_across_the_wrap(emitter: Object) -> None:
    with emitter, Ring.of(emitter.maps["ring"], RECORD) as ring:
        expected = 1
        for _ in range(30):  # 50 records of 32 bytes: wraps a 4096-byte ring a dozen times
            emitter.program("submit").test_run(FRAME, repeat=50)
            records = ring.read()
            assert records["sequence"].tolist() == list(range(expected, expected + 50))
            assert (records["twice"] == 2 * records["sequence"]).all()
            assert (records["tail"] == 7).all()
            expected += 50
        assert ring.statistics().records == 1500
        assert ring.waiting() == 0
        assert len(ring.read()) == 0


def test_emitted_is_stored_plus_lost(emitter: Object) -> None:
    with emitter, Ring.of(emitter.maps["ring"], RECORD) as ring:
        stored = 0
        for _ in range(5):
            emitter.program("submit").test_run(FRAME, repeat=1000)
            stored += len(ring.read())
        emitted, lost = struct.unpack("QQ", emitter.maps["stats"][bytes(4)])
        assert emitted == 5000
        assert lost > 0
        assert emitted == stored + lost


def test_what_is_not_a_record_is_passed_over_and_counted(emitter: Object) -> None:
    with emitter, Ring.of(emitter.maps["ring"], RECORD) as ring:
        for name in ("submit", "discard", "other_size", "submit"):
            emitter.program(name).test_run(FRAME)
        assert ring.read()["sequence"].tolist() == [1, 3]
        statistics = ring.statistics()
        assert (statistics.records, statistics.discarded, statistics.foreign) == (2, 1, 1)


def test_at_most_so_many_and_readable_while_some_wait(emitter: Object) -> None:
    with emitter, Ring.of(emitter.maps["ring"], RECORD) as ring:
        poll = select.epoll()
        poll.register(ring, select.EPOLLIN)
        assert poll.poll(0) == []
        emitter.program("submit").test_run(FRAME, repeat=10)
        assert poll.poll(0) != []
        assert len(ring.read(4)) == 4
        assert poll.poll(0) != []
        assert len(ring.read(100)) == 6
        assert poll.poll(0) == []
        poll.close()


def test_only_a_ring_buffer_is_one() -> None:
    table = Map.create(MapType.HASH, "table", raw(4), U64, 1)
    with table, pytest.raises(ValueError, match="not a ring buffer"):
        Ring.of(table, RECORD)
