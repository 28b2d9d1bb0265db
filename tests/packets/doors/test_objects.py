"""Open, configure, load, run."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from podwire.base.errors import ConfigError, KernelError, NotFound, VerifierRejected
from podwire.bpf.map import U32
from podwire.bpf.object import IncompatibleMaps, ObjectSpec, SkbContext, load, test_run

pytestmark = pytest.mark.kernel

COUNTER = """
const volatile __u32 step = 1;
const volatile __u16 answer = 7;
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} counter SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 16);
} table SEC(".maps");

SEC("tc") int count(struct __sk_buff *skb)
{
	__u32 zero = 0, *value = bpf_map_lookup_elem(&counter, &zero);

	if (value)
		__sync_fetch_and_add(value, step);
	bpf_map_update_elem(&table, &zero, &zero, 0);
	skb->mark += 1;
	skb->cb[0] = skb->ifindex;
	return answer;
}

SEC("tc") int grow(struct __sk_buff *skb)
{
	return bpf_skb_change_tail(skb, skb->len + 100, 0);
}
"""
FRAME = bytes(12) + b"\x08\x00" + bytes(46)


def test_constants_maps_and_a_test_run(compile_bpf: Callable[[str], str]) -> None:
    spec = ObjectSpec(compile_bpf(COUNTER), constants={"step": 5, "answer": 2}, max_entries={"table": 99})
    with load(spec) as loaded:
        assert sorted(loaded.programs) == ["count", "grow"]
        run = loaded.program("count").test_run(FRAME, SkbContext(mark=41, ifindex=1), repeat=3)
        assert run.retval == 2
        assert run.data == FRAME
        assert run.context is not None
        assert (run.context.mark, run.context.cb[0]) == (44, 1)
        with loaded.map("counter", U32, U32) as counter:
            assert counter[0] == 15
        assert loaded.maps["table"].capacity == 99
        retval, data, duration = test_run(loaded.program("grow"), FRAME)
        assert (retval, len(data)) == (0, len(FRAME) + 100)
        assert duration >= 0


def test_what_the_object_does_not_have_is_named(compile_bpf: Callable[[str], str]) -> None:
    path = compile_bpf(COUNTER)
    with pytest.raises(ConfigError, match="no constant stride"):
        load(ObjectSpec(path, constants={"stride": 1}))
    with pytest.raises(ConfigError, match="does not fit the 2 bytes"):
        load(ObjectSpec(path, constants={"answer": 70000}))
    with pytest.raises(NotFound, match="no program jump"):
        load(ObjectSpec(path, programs=("count", "jump")))
    with pytest.raises(KernelError, match="open /nowhere"):
        load(ObjectSpec("/nowhere"))
    with load(ObjectSpec(path, programs=("count",))) as loaded:
        assert list(loaded.programs) == ["count"]
        with pytest.raises(NotFound, match="no program grow"):
            loaded.program("grow")


def test_pinned_maps_are_used_again_if_they_fit(compile_bpf: Callable[[str], str], pins: str) -> None:
    path = compile_bpf(COUNTER)
    with load(ObjectSpec(path, pins=pins)) as first:
        first.program("count").test_run(FRAME)
    with load(ObjectSpec(path, pins=pins)) as second:
        second.program("count").test_run(FRAME)
        with second.map("counter", U32, U32) as counter:
            assert counter[0] == 2
    with load(ObjectSpec(path, pins=pins, max_entries={"table": 8})) as smaller:
        assert smaller.maps["table"].capacity == 16  # a map that grew serves

    with pytest.raises(IncompatibleMaps) as refused:
        load(ObjectSpec(path, pins=pins, max_entries={"table": 32}))
    assert [str(one) for one in refused.value.differences] == ["table: max_entries is 16, not 32"]
    changed = COUNTER.replace(
        "__type(value, __u32);\n\t__uint(max_entries, 16);",
        "__type(value, __u64);\n\t__uint(max_entries, 16);",
    ).replace("bpf_map_update_elem(&table, &zero, &zero, 0);", "")
    with pytest.raises(IncompatibleMaps) as refused:
        load(ObjectSpec(compile_bpf(changed, "changed"), pins=pins))
    assert [(one.field, one.wanted, one.found) for one in refused.value.differences] == [("value_size", 8, 4)]


def test_maps_of_another_object_can_be_shared(compile_bpf: Callable[[str], str]) -> None:
    path = compile_bpf(COUNTER)
    with load(ObjectSpec(path)) as first, load(ObjectSpec(path), maps=first.maps) as second:
        first.program("count").test_run(FRAME)
        second.program("count").test_run(FRAME)
        with first.map("counter", U32, U32) as counter:
            assert counter[0] == 2


def test_a_refused_program_says_why_and_leaves_nothing(compile_bpf: Callable[[str], str], pins: str) -> None:
    bad = COUNTER + 'SEC("tc") int bad(struct __sk_buff *skb) { return *(int *)(long)skb->len; }'
    with pytest.raises(VerifierRejected) as refused:
        load(ObjectSpec(compile_bpf(bad), pins=pins))
    assert refused.value.program == "bad"
    assert "invalid mem access" in refused.value.log
    assert os.listdir(pins) == []
