/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fragments: the first one remembers the ports for those that follow, for only it has
 * them. A later fragment whose first one has not been admitted is dropped.
 *
 * Each endpoint and direction has its own places, and a datagram one of these: who sends many
 * forgets his own. Nobody has more than FRAGMENT_PLACES, so the map has room for 256 endpoints that
 * use all of theirs before it forgets what was used least.
 */
#pragma once

#include "flow.h"

#define FRAGMENTS_MAX   32768
#define FRAGMENT_PLACES 64 /* a power of 2 */
#define HASH_MULTIPLIER 2654435761U

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
	__uint(max_entries, FRAGMENTS_MAX);
} podwire_fragments SEC(".maps");

static __always_inline __u32 fragment_mix(const union address *address)
{
	__u64 mixed = address->halves[0] ^ address->halves[1];

	return mixed ^ mixed >> 32;
}

/* Datagrams that follow each other have numbers that do: they get places of their own. */
static __always_inline struct fragment_key fragment_key_of(const struct flow *flow)
{
	__u32 id = flow->fragment_id;
	__u32 peers = fragment_mix(&flow->source) * 31 + fragment_mix(&flow->destination);
	struct fragment_key key = {.share = flow_share(flow)};

	id ^= id >> 16;
	id ^= id >> 8; /* whichever byte counts: it is the network's order */
	key.place = (id ^ peers * HASH_MULTIPLIER >> 24) & (FRAGMENT_PLACES - 1);
	return key;
}

/* To be remembered once the packet is admitted: by then its addresses may be others. */
__function int fragment_note(struct flow *flow)
{
	struct scratch *scratch = scratch_here();
	struct fragment *noted;

	if (!flow || !scratch)
		return DROP_FRAGMENT_INSERT_FAILED;
	noted = &scratch->fragment;
	scratch->fragment_key = fragment_key_of(flow);
	noted->source = flow->source;
	noted->destination = flow->destination;
	noted->id = flow->fragment_id;
	noted->source_port = flow->source_port;
	noted->destination_port = flow->destination_port;
	noted->protocol = flow->protocol;
	noted->asks = flow->tuple.asks;
	/* What follows of an error has no header that would say so: it is asked about by its kind.
	 */
	if (flow->flags & FLOW_ERROR) {
		noted->source_port = ICMP_NO_ECHO;
		noted->destination_port = bpf_htons(flow->icmp_type << 8 | flow->icmp_code);
	}
	return 0;
}

/* 0 or why the fragment must be dropped. The sender's policy has admitted it: what a pod may not
 * send takes no place. The receiver's is asked about what follows as well.
 */
__function int fragment_remember(struct flow *flow)
{
	struct scratch *scratch = scratch_here();
	struct fragment_key key;

	if (!flow || !(flow->flags & FLOW_FIRST_FRAGMENT))
		return 0;
	if (!scratch)
		return DROP_FRAGMENT_INSERT_FAILED;
	key = scratch->fragment_key;
	if (bpf_map_update_elem(&podwire_fragments, &key, &scratch->fragment, BPF_ANY))
		return DROP_FRAGMENT_INSERT_FAILED;
	return 0;
}

static __always_inline int fragment_recall(struct flow *flow)
{
	struct fragment_key key = fragment_key_of(flow);
	struct fragment *known = bpf_map_lookup_elem(&podwire_fragments, &key);

	if (!known || known->id != flow->fragment_id || known->protocol != flow->protocol ||
	    !address_equal(&known->source, &flow->source) ||
	    !address_equal(&known->destination, &flow->destination))
		return DROP_FRAGMENT_NOT_FOUND;
	flow->source_port = known->source_port;
	flow->destination_port = known->destination_port;
	flow->tuple.asks = known->asks;
	return 0;
}
