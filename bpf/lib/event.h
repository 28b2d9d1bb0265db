/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Events: one record for each thing worth telling. Every attempt gets a number of its
 * CPU; what finds the ring full is counted, so emitted = stored + lost.
 *
 * While the ring fills faster than it is read each endpoint has a share of it, so that the flood of
 * one does not hide what happens to another.
 */
#pragma once

#include "flow.h"
#include "ipcache.h"
#include "limit.h"

#define EVENTS_BYTES     (8 << 20)
#define EVENT_SHARES_MAX (EVENT_SHARES_SOCKETS + 65536)
#define EVENT_CGROUPS    0xffff

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_BYTES);
} podwire_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct event_stats);
	__uint(max_entries, 1);
} podwire_event_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct event_share);
	__uint(max_entries, EVENT_SHARES_MAX);
} podwire_event_shares SEC(".maps");

static __always_inline bool event_is_within(__u32 index)
{
	struct event_share *share;

	if (!config_event_share ||
	    bpf_ringbuf_query(&podwire_events, BPF_RB_AVAIL_DATA) < EVENTS_BYTES / 2)
		return true;
	share = bpf_map_lookup_elem(&podwire_event_shares, &index);
	if (!share || limit_admits((struct limit *)share, bpf_ktime_get_boot_ns() / NS_PER_S,
				   config_event_share))
		return true;
	__sync_fetch_and_add(&share->withheld, 1);
	return false;
}

/* A numbered record to fill and submit, on the account of `share`; NULL if there is no room for it
 * (which is counted).
 */
static __always_inline struct event *event_reserve(__u8 kind, __u32 share)
{
	__u32 zero = 0;
	struct event_stats *stats = bpf_map_lookup_elem(&podwire_event_stats, &zero);
	struct event *event = NULL;
	__u64 sequence;

	if (!stats)
		return NULL;
	sequence = kernel_number(&stats->emitted);
	if (event_is_within(share))
		event = bpf_ringbuf_reserve(&podwire_events, sizeof(*event), 0);
	else
		__sync_fetch_and_add(&stats->withheld, 1);
	if (!event) {
		__sync_fetch_and_add(&stats->lost, 1);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_boot_ns();
	event->sequence = sequence;
	event->cpu = bpf_get_smp_processor_id();
	event->kind = kind;
	return event;
}

static __always_inline __u8 event_flags_of(const struct flow *flow)
{
	__u8 flags = 0;

	if (flow_is_ipv6(flow))
		flags |= EVENT_IPV6;
	if (flow->state != TRACE_REASON_UNKNOWN)
		flags |= EVENT_REPLY_KNOWN;
	if (flow->state == TRACE_REASON_REPLY)
		flags |= EVENT_REPLY;
	if (flow->flags & FLOW_FRAGMENT)
		flags |= EVENT_FRAGMENT;
	if (flow->flags & FLOW_TRUNCATED)
		flags |= EVENT_TRUNCATED;
	return flags;
}

static __always_inline void event_fill(struct event *event, const struct flow *flow)
{
	event->source = flow->source;
	event->destination = flow->destination;
	event->original = flow->original;
	event->source_identity = flow->source_identity;
	event->destination_identity = flow->destination_identity;
	event->rule = flow->rule;
	event->policy = flow->policy;
	event->length = flow->length;
	event->error = flow->error;
	event->source_endpoint = flow->source_endpoint;
	event->destination_endpoint = flow->destination_endpoint;
	event->original_port = bpf_ntohs(flow->original_port);
	event->direction = flow->direction;
	event->protocol = flow->protocol;
	event->match = flow->match;
	event->flags = event_flags_of(flow);
	if (flow_has_ports(flow)) {
		event->source_port = bpf_ntohs(flow->source_port);
		event->destination_port = bpf_ntohs(flow->destination_port);
		event->tcp_flags = flow->tcp_flags;
	} else {
		event->icmp_type = flow->icmp_type;
		event->icmp_code = flow->icmp_code;
	}
}

/* Out of line: it happens for few packets of a connection. */
__function int event_emit(struct __ctx_buff *ctx, struct flow *flow, __u32 kind, __u32 point,
			  __u32 reason)
{
	struct event *event;

	if (!flow)
		return 0;
	event = event_reserve(kind, flow_share(flow));
	if (!event)
		return 0;
	flow_identify(flow);
	event_fill(event, flow);
	event->point = point;
	event->reason = reason;
	event->device = ctx_device(ctx);
	ctx_load(ctx, 0, event->destination_mac, ETH_ALEN);
	ctx_load(ctx, ETH_ALEN, event->source_mac, ETH_ALEN);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* What a policy said; reason 0 = it allowed. point 1 with a reason = denied, but only audited. */
static __always_inline void event_verdict(struct __ctx_buff *ctx, struct flow *flow, __u8 reason)
{
	if (config_verdict_events)
		event_emit(ctx, flow, EVENT_VERDICT, reason && !config_policy_audit ? 2 : 1,
			   reason);
}

/* Where the packet went, if conntrack found that worth telling. */
static __always_inline void event_trace(struct __ctx_buff *ctx, struct flow *flow, __u8 point)
{
	if (config_trace_events && flow->flags & FLOW_REPORT)
		event_emit(ctx, flow, EVENT_TRACE, point, flow->state);
}
