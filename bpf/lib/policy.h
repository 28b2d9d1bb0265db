/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Policy: what may this peer do to this endpoint?
 *
 * Two lookups: the peer's class under this policy, then what the policy says to that
 * class about this protocol and port. No entry means that nothing allows it.
 */
#pragma once

#include "ipcache.h"
#include "abi/policy.h"

#define POLICY_PEERS_MAX   131072 /* blocks of 16 identities */
#define POLICY_ENTRIES_MAX 65536

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct policy_peers_key);
	__type(value, struct policy_peers);
	__uint(max_entries, POLICY_PEERS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_policy_peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
	__uint(max_entries, POLICY_ENTRIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_policy SEC(".maps");

/* Where rows of addresses are missing, only a row of this very address says who it is: a prefix
 * that holds it may be there in the place of a longer one, and whoever no row names is not the
 * world.
 */
static __always_inline bool policy_knows_address(const struct endpoint *endpoint,
						 const union address *address)
{
	union address key = *address;

	if (!(endpoint->flags & ENDPOINT_ADDRESSES_MISSING))
		return true;
	return endpoint_at(&key) || bpf_map_lookup_elem(&podwire_ipcache, &key);
}

/* False: the peer may be of a class, but what says so may be missing: its block, or in a block of a
 * policy that is asked no more it itself.
 */
static __always_inline bool policy_class_of(const struct endpoint *endpoint, __u32 identity,
					    __u8 direction, __u32 *class)
{
	struct policy_peers_key key = {
		.policy = endpoint->policy,
		.block = identity >> PEER_BLOCK_BITS,
		.direction = direction,
	};
	struct policy_peers *found = bpf_map_lookup_elem(&podwire_policy_peers, &key);

	*class = found ? found->classes[identity & ((1 << PEER_BLOCK_BITS) - 1)] : POLICY_CLASS_ANY;
	return *class != POLICY_CLASS_ANY || !(endpoint->flags & ENDPOINT_PEERS_MISSING);
}

/* ICMP has its type and code where others have their port. For an echo the key says who asked; of
 * any other message the ports have the kind, also of its later fragments, which have no header to
 * read it from; of an error that is about no connection the flow has it.
 */
static __always_inline __be16 policy_icmp(const struct flow *flow, const struct ct_key *key,
					  __u8 direction)
{
	bool egress = direction == DIRECTION_EGRESS;
	bool asked = key->asks == (egress ? CT_LOCAL_ASKS : CT_REMOTE_ASKS);
	__be16 asks = egress ? key->local_port : key->remote_port;
	__be16 answers = egress ? key->remote_port : key->local_port;

	if (!key->asks)
		return asks == ICMP_NO_ECHO ? answers
					    : bpf_htons(flow->icmp_type << 8 | flow->icmp_code);
	if (flow_is_ipv6(flow))
		return bpf_htons((asked ? ICMPV6_ECHO_REQUEST : ICMPV6_ECHO_REPLY) << 8);
	return bpf_htons((asked ? ICMP_ECHO_REQUEST : ICMP_ECHO_REPLY) << 8);
}

/* The port of the side that was called. */
static __always_inline __be16 policy_port(const struct flow *flow, const struct ct_key *key,
					  __u8 direction)
{
	if (key->protocol == IPPROTO_ICMP || key->protocol == PROTOCOL_ICMPV6)
		return policy_icmp(flow, key, direction);
	return direction == DIRECTION_EGRESS ? key->remote_port : key->local_port;
}

static __always_inline bool policy_is_asked(const struct endpoint *endpoint, __u8 direction)
{
	return endpoint->flags &
	       (direction == DIRECTION_EGRESS ? ENDPOINT_ENFORCE_EGRESS : ENDPOINT_ENFORCE_INGRESS);
}

/* 0 or the reason to drop. Asked is `flow->direction`, the opener's, and `flow->peer`; the
 * flow remembers the rule.
 */
__function int policy_ask(struct flow *flow, const struct endpoint *endpoint,
			  const struct ct_key *about)
{
	struct policy_key key = {.prefix_length = POLICY_PREFIX_PORT};
	struct policy_entry *entry;

	if (!flow || !endpoint || !about)
		return DROP_POLICY_DENIED;
	flow->policy = endpoint->policy;
	flow->rule = 0;
	flow->match = MATCH_NONE;
	if (!policy_knows_address(endpoint, &about->remote) ||
	    !policy_class_of(endpoint, flow->peer, flow->direction, &key.peer_class))
		return DROP_PEER_UNKNOWN;
	key.policy = endpoint->policy;
	key.direction = flow->direction;
	key.protocol = about->protocol;
	key.port = policy_port(flow, about, flow->direction);
	entry = bpf_map_lookup_elem(&podwire_policy, &key);

	if (entry) {
		flow->rule = entry->rule;
		flow->match = entry->match;
	}
	if (!entry || entry->verdict == POLICY_DEFAULT_DENY)
		return DROP_POLICY_DENIED; /* nobody allowed it */
	/* A proxy that is not there must not become a plain permission. */
	if (entry->verdict != POLICY_ALLOW || entry->proxy_port)
		return DROP_POLICY_DENY; /* somebody forbade it */
	return 0;
}
