/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Neighbours: whom the node's stack would have to ask for before it can send a packet on. One table
 * of them serves all namespaces of the machine, and who is asked for stays in it for seconds: a pod
 * that tries address after address of the node's network would fill it for everybody.
 */
#pragma once

#include "flow.h"
#include "limit.h"

#define NEIGHBOUR_SHARES_MAX 65536 /* by endpoint id */
#define FAMILY_IPV4          2
#define FAMILY_IPV6          10
#define FIB_NO_NEIGHBOUR     7 /* BPF_FIB_LKUP_RET_NO_NEIGH */

/* struct bpf_fib_lookup, as all kernels since 4.18 take it. */
struct fib_question {
	__u8 family;
	__u8 protocol;
	__be16 source_port;
	__be16 destination_port;
	__u16 length;
	__u32 device; /* that it came in on */
	__u32 class;
	__u32 source[4];
	__u32 destination[4];
	__u8 answer[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct limit);
	__uint(max_entries, NEIGHBOUR_SHARES_MAX);
} podwire_neighbour_shares SEC(".maps");

static __always_inline void neighbour_address(__u32 *to, const union address *from, bool ipv6)
{
	if (ipv6)
		__builtin_memcpy(to, from, sizeof(*from));
	else
		to[0] = from->words[3];
}

/* Would the stack have to ask? */
static __always_inline bool neighbour_is_unknown(struct __sk_buff *skb, const struct flow *flow)
{
	struct fib_question question = {
		.protocol = flow->protocol,
		.device = skb->ifindex,
	};
	bool ipv6 = flow_is_ipv6(flow);

	question.family = ipv6 ? FAMILY_IPV6 : FAMILY_IPV4;
	neighbour_address(question.source, &flow->source, ipv6);
	neighbour_address(question.destination, &flow->destination, ipv6);
	return bpf_fib_lookup(skb, (void *)&question, sizeof(question), 0) == FIB_NO_NEIGHBOUR;
}

/* 0 or the reason to drop. Who has answered is known, so this is for the others' packets only. */
__function int neighbour_admit(struct __sk_buff *skb, struct flow *flow)
{
	struct limit *limit;
	__u32 endpoint;

	if (!flow || !config_neighbour_share || !neighbour_is_unknown(skb, flow))
		return 0;
	endpoint = flow->source_endpoint;
	limit = bpf_map_lookup_elem(&podwire_neighbour_shares, &endpoint);
	if (!limit || limit_admits(limit, flow->now, config_neighbour_share))
		return 0;
	return DROP_NEIGHBOURS;
}
