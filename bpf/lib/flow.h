/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A flow: what the programs know of the packet at hand. Parsing fills it once, every
 * later step reads it and adds what it found, events and drops report it.
 *
 * The tuple has the layout of a conntrack key as the sender sees it, so the sender's
 * lookup needs no copy.
 */
#pragma once

#include "net.h"
#include "abi/conntrack.h"
#include "abi/event.h"
#include "abi/drop.h"

enum flow_flags {
	FLOW_IPV6 = 1 << 0,
	FLOW_FRAGMENT = 1 << 1, /* not the first: no transport header in this packet */
	FLOW_FIRST_FRAGMENT = 1 << 2,
	FLOW_ERROR = 1 << 3,   /* an ICMP error; `inner` is what it is about */
	FLOW_HAIRPIN = 1 << 4, /* a pod and itself, by way of a Service */
	FLOW_TRUNCATED = 1 << 5,
	FLOW_REPORT = 1 << 6,     /* conntrack found something worth a trace event */
	FLOW_NEIGHBOUR = 1 << 7,  /* link-local upkeep, not a flow */
	FLOW_OUTSIDE = 1 << 8,    /* from the network: nothing of ours comes from there */
	FLOW_CHOSEN = 1 << 9,     /* a Service has just given it a backend */
	FLOW_ELSEWHERE = 1 << 10, /* a node's by its address, but not by its way */
	FLOW_REFRESH = 1 << 11,   /* the first packet of its connection in this second */
};

struct flow {
	union {
		struct ct_key tuple;
		struct {
			union address source;
			union address destination;
			__be16 source_port;
			__be16 destination_port;
			__u8 protocol;
		};
	};
	/* FLOW_ERROR: the connection the error is about, turned as if the error were a
	 * packet of it: `local` is the side the error comes from.
	 */
	struct ct_key inner;
	union address original; /* the Service's address where the packet has (had) a backend's */
	__be16 original_port;
	__u16 source_endpoint;
	__u16 destination_endpoint;
	__u16 transport;       /* offset of the transport header */
	__u32 source_identity; /* 0 = not asked yet */
	__u32 destination_identity;
	__u32 peer; /* the identity policy is asked about */
	__u32 rule;
	__u32 policy;
	__u32 now; /* s, CLOCK_BOOTTIME */
	__u32 length;
	__u32 fragment_id;
	__u32 end;     /* offset behind the packet: as its IP header says, not what trails it */
	__u32 rev_nat; /* the Service this packet was translated for */
	__u32 backend;
	__u32 service_epoch; /* read before its Service was looked at */
	__u16 flags;
	__u16 error;           /* errno of the kernel call that failed */
	__u16 inner_transport; /* FLOW_ERROR: offset of the inner transport header */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 time_to_live;
	__u8 direction; /* enum direction: the half of the walk we are in */
	__u8 match;
	__u8 state;      /* enum trace_reason: what conntrack knew */
	__u8 tcp_header; /* bytes, options included */
};

static __always_inline bool flow_is_ipv6(const struct flow *flow)
{
	return flow->flags & FLOW_IPV6;
}

static __always_inline bool flow_is_echo_request(const struct flow *flow)
{
	return flow->icmp_type == (flow_is_ipv6(flow) ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST);
}

static __always_inline bool flow_is_echo_reply(const struct flow *flow)
{
	return flow->icmp_type == (flow_is_ipv6(flow) ? ICMPV6_ECHO_REPLY : ICMP_ECHO_REPLY);
}

static __always_inline bool flow_has_ports(const struct flow *flow)
{
	return flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP;
}

/* On whose account it goes: a pod of this node pays for what it sends, at both ends; who is sent to
 * from afar for that. See enum ct_share.
 */
static __always_inline __u32 flow_share(const struct flow *flow)
{
	if (flow->source_endpoint)
		return flow->source_endpoint * 2 + CT_SHARE_OUT;
	return flow->destination_endpoint * 2 + CT_SHARE_IN;
}

/* The same connection as the other side's endpoint sees it. */
static __always_inline void ct_key_turn(struct ct_key *turned, const struct ct_key *key)
{
	turned->local = key->remote;
	turned->remote = key->local;
	turned->local_port = key->remote_port;
	turned->remote_port = key->local_port;
	turned->protocol = key->protocol;
	turned->scope = key->scope;
	/* 1 and 2 change places. */
	turned->asks = key->asks ? key->asks ^ (CT_LOCAL_ASKS | CT_REMOTE_ASKS) : 0;
	turned->pad = 0;
}

/* What a CPU keeps between packets. The flow is here, for it and the frames below would not fit
 * the stack: packets are handled with softirqs off, so no other one comes in between.
 */
struct scratch {
	struct flow flow;
	struct ct_entry entry;    /* one that is being made */
	struct fragment fragment; /* FLOW_FIRST_FRAGMENT: to be remembered, and where */
	struct fragment_key fragment_key;
	__u32 seconds; /* CLOCK_BOOTTIME when `tick` was read */
	__u64 tick;    /* jiffies */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} podwire_scratch SEC(".maps");

/* Seconds are enough for timeouts, and reading the clock takes a third of the walk: it is read
 * once a jiffy.
 */
static __always_inline __u32 scratch_now(struct scratch *scratch)
{
	__u64 tick = bpf_jiffies64();

	if (scratch->tick != tick) {
		scratch->tick = tick;
		scratch->seconds = bpf_ktime_get_boot_ns() / NS_PER_S;
	}
	return scratch->seconds;
}

static __always_inline struct scratch *scratch_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&podwire_scratch, &zero);
}

/* A blank flow; NULL never happens, but the verifier cannot know. */
static __always_inline struct flow *flow_begin(struct __ctx_buff *ctx, enum direction direction)
{
	struct scratch *scratch = scratch_here();
	struct flow *flow;

	if (!scratch)
		return NULL;
	flow = &scratch->flow;
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->length = ctx_length(ctx);
	flow->direction = direction;
	flow->now = scratch_now(scratch);
	return flow;
}
