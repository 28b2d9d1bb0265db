"""Programs that count by number how often they ran."""

from __future__ import annotations

from podwire.bpf.map import U32
from podwire.bpf.object import Object

SEEN = """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 2);
} seen SEC(".maps");
static void note(__u32 index)
{
	__u32 *value = bpf_map_lookup_elem(&seen, &index);

	if (value)
		__sync_fetch_and_add(value, 1);
}
"""


def seen(programs: Object) -> list[int]:
    """What those with `SEEN` in front have noted under 0 and 1."""
    with programs.map("seen", U32, U32) as table:
        return [table[0], table[1]]
