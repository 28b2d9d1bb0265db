/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fragments: the first one remembers the ports for those that follow, for only it has
 * them. A later fragment whose first one has not been seen is dropped.
 */
#pragma once

#include "flow.h"

#define FRAGMENTS_MAX 8192

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
	__uint(max_entries, FRAGMENTS_MAX);
} podwire_fragments SEC(".maps");

static __always_inline struct fragment_key fragment_key_of(const struct flow *flow)
{
	struct fragment_key key = {
		.source = flow->source,
		.destination = flow->destination,
		.id = flow->fragment_id,
		.protocol = flow->protocol,
	};

	return key;
}

/* 0 or why the fragment must be dropped. */
static __always_inline int fragment_remember(struct flow *flow)
{
	struct fragment_key key = fragment_key_of(flow);
	struct fragment_ports ports = {
		.source_port = flow->source_port,
		.destination_port = flow->destination_port,
		.asks = flow->tuple.asks,
	};

	/* What follows of an error has no header that would say so: it is asked about by its kind.
	 */
	if (flow->flags & FLOW_ERROR) {
		ports.source_port = ICMP_NO_ECHO;
		ports.destination_port = bpf_htons(flow->icmp_type << 8 | flow->icmp_code);
	}
	if (bpf_map_update_elem(&podwire_fragments, &key, &ports, BPF_ANY))
		return DROP_FRAGMENT_INSERT_FAILED;
	return 0;
}

static __always_inline int fragment_recall(struct flow *flow)
{
	struct fragment_key key = fragment_key_of(flow);
	struct fragment_ports *ports = bpf_map_lookup_elem(&podwire_fragments, &key);

	if (!ports)
		return DROP_FRAGMENT_NOT_FOUND;
	flow->source_port = ports->source_port;
	flow->destination_port = ports->destination_port;
	flow->tuple.asks = ports->asks;
	return 0;
}
