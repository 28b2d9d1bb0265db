/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For testing only: parses a packet, writes another address and port into it if told to, and tells what it
 * knows of it. Compiled for packets of the stack and for frames of a driver.
 */
#include "lib/drop.h"
#include "lib/parse.h"
#include "lib/translate.h"

const volatile __u32 dropping; /* what cannot be read */
const volatile __u32 translating; /* 0 = no; 1 + enum translate_side */
const volatile union address new_ipv4;
const volatile union address new_ipv6;
const volatile __u16 new_port;

struct told {
	struct flow flow;
	__u32 reason;
	__u32 written;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct told);
	__uint(max_entries, 1);
} told SEC(".maps");

static __always_inline int parse_all(struct __ctx_buff *ctx, struct flow *flow)
{
	int reason = parse_network(ctx, flow);

	if (!reason)
		reason = parse_transport(ctx, flow);
	return reason ? reason : parse_neighbour(flow);
}

static __always_inline int write_all(struct __ctx_buff *ctx, struct flow *flow)
{
	const volatile union address *given = flow_is_ipv6(flow) ? &new_ipv6 : &new_ipv4;
	union address to;
	int reason = 0;

	to.halves[0] = given->halves[0];
	to.halves[1] = given->halves[1];
	if (flow->flags & FLOW_ERROR && flow->inner.protocol)
		reason = translate_inner(ctx, flow, translating - 1, &to, bpf_htons(new_port));
	return reason ? reason : translate(ctx, flow, translating - 1, &to, bpf_htons(new_port));
}

SEC(CTX_SECTION)
int twin(struct __ctx_buff *ctx)
{
	struct flow *flow = flow_begin(ctx, DIRECTION_INGRESS);
	__u32 zero = 0, written = 0;
	struct told *row = bpf_map_lookup_elem(&told, &zero);
	int reason;

	if (!flow || !row)
		return CTX_PASS;
	reason = parse_all(ctx, flow);
	if (!reason && flow->flags & FLOW_FIRST_FRAGMENT)
		reason = fragment_remember(flow);
	if (!reason && translating)
		written = write_all(ctx, flow);
	flow->now = 0; /* which is another for each */
	row->flow = *flow;
	row->reason = reason;
	row->written = written;
	if (dropping && reason)
		return drop(ctx, flow, reason);
	return CTX_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
