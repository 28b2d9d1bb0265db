/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Conntrack: which connection does this packet belong to, seen from an endpoint?
 *
 * Two tables. What is in the first is never forgotten before it expires; each endpoint has a share
 * of it. What is beyond a share, or finds the table full, goes into the overflow, which forgets
 * the oldest: there floods push out each other.
 */
#pragma once

#include "flow.h"
#include "abi/policy.h"

#define CONNTRACK_MAX   65536
#define CT_OVERFLOW_MAX 16384
#define CT_SHARES_MAX   131072 /* two for each endpoint id */
#define ERR_EXIST       17

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct ct_key);
	__type(value, struct ct_entry);
	__uint(max_entries, CONNTRACK_MAX);
} podwire_conntrack SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct ct_key);
	__type(value, struct ct_entry);
	__uint(max_entries, CT_OVERFLOW_MAX);
} podwire_ct_overflow SEC(".maps");

/* Entries ever made, by share, and what the agent has found gone since: the difference is in use.
 * Two maps, for each has one writer.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, CT_SHARES_MAX);
} podwire_ct_made SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, CT_SHARES_MAX);
} podwire_ct_gone SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct node_state);
	__uint(max_entries, 1);
} podwire_state SEC(".maps");

#define CT_CLOSING (CT_CLOSING_LOCAL | CT_CLOSING_REMOTE)

static __always_inline __u32 epoch_place(__u32 value, __u32 bits)
{
	return value * (__u32)EPOCH_MULTIPLIER >> (32 - bits);
}

static __always_inline __u32 epoch_of_address(const struct node_state *state,
					      const union address *address)
{
	__u32 words = address->words[0] ^ address->words[1] ^ address->words[2] ^ address->words[3];

	return state->addresses[epoch_place(words, EPOCH_ADDRESS_BITS)];
}

static __always_inline __u32 epoch_of_identity(const struct node_state *state, __u32 identity)
{
	return state->identities[epoch_place(identity >> PEER_BLOCK_BITS, EPOCH_IDENTITY_BITS)];
}

static __always_inline __u32 epoch_of_policy(const struct node_state *state, __u32 policy)
{
	return state->policies[epoch_place(policy, EPOCH_POLICY_BITS)];
}

static __always_inline struct node_state *node_state_find(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&podwire_state, &zero);
}

static __always_inline __u32 service_epoch(void)
{
	struct node_state *state = node_state_find();

	return state ? state->service_epoch : 0;
}

static __always_inline __u32 ct_in_use(__u32 share)
{
	__u32 *made = bpf_map_lookup_elem(&podwire_ct_made, &share);
	__u32 *gone = bpf_map_lookup_elem(&podwire_ct_gone, &share);

	return made && gone ? *made - *gone : 0;
}

static __always_inline void ct_charge(__u32 share)
{
	__u32 *made = bpf_map_lookup_elem(&podwire_ct_made, &share);

	if (made)
		__sync_fetch_and_add(made, 1);
}

/* NULL also for what has expired: maps do not forget by themselves. */
static __always_inline struct ct_entry *ct_find(const struct ct_key *key, __u32 now)
{
	struct ct_key copy = *key; /* Linux 6.1 takes no key from behind a pointer argument */
	struct ct_entry *entry = bpf_map_lookup_elem(&podwire_conntrack, &copy);

	if (!entry && ct_in_use(CT_SHARE_OVERFLOW))
		entry = bpf_map_lookup_elem(&podwire_ct_overflow, &copy);
	return entry && entry->expires >= now ? entry : NULL;
}

/* What comes from afar has half of the table in all, with what the node itself opens three
 * quarters: whatever floods from there, the pods' own connections find room.
 */
static __always_inline bool ct_has_room(const struct ct_entry *entry)
{
	if (!config_ct_share)
		return true;
	/* Not a pod's to itself, which nobody is asked about either. */
	if (entry->flags & CT_NODE_ORIGIN && entry->share & CT_SHARE_IN)
		return ct_in_use(CT_SHARE_AFAR) < config_ct_table / 4 * 3;
	if (entry->share & CT_SHARE_IN && ct_in_use(CT_SHARE_AFAR) >= config_ct_table / 2)
		return false;
	return ct_in_use(entry->share) < config_ct_share;
}

/* Into the table while the share lasts and there is room, else into the overflow. What the key had
 * before is replaced. 0 or the kernel's error.
 */
static __always_inline int ct_put(const struct ct_key *key, struct ct_entry *entry)
{
	bool within = ct_has_room(entry);
	struct ct_key copy = *key;
	int error; /* no more of it is the kernel's before Linux 6.4 */

	error = bpf_map_update_elem(&podwire_conntrack, &copy, entry,
				    within ? BPF_NOEXIST : BPF_EXIST);
	if (!error && within) {
		ct_charge(entry->share);
		if (entry->share & CT_SHARE_IN)
			ct_charge(CT_SHARE_AFAR);
	}
	if (error == -ERR_EXIST)
		error = bpf_map_update_elem(&podwire_conntrack, &copy, entry, BPF_ANY);
	if (!error)
		return 0;
	error = bpf_map_update_elem(&podwire_ct_overflow, &copy, entry, BPF_ANY);
	if (!error)
		ct_charge(CT_SHARE_OVERFLOW);
	return error;
}

static __always_inline bool ct_opens(const struct flow *flow)
{
	return flow->protocol == IPPROTO_TCP && (flow->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A SYN opens a closed connection anew. One against the direction of a connection that
 * is still known is no reply: else whoever may answer a pod could also call it.
 */
static __always_inline bool ct_reopens(const struct flow *flow, const struct ct_entry *entry,
				       __u8 side)
{
	return ct_opens(flow) && (entry->flags & CT_CLOSING || entry->direction != side);
}

static __always_inline __u32 ct_timeout(const struct ct_entry *entry, __u8 protocol)
{
	if (protocol != IPPROTO_TCP)
		return config_ct_any;
	if (entry->flags & CT_RESET)
		return config_ct_tcp_reset;
	if ((entry->flags & CT_CLOSING) == CT_CLOSING)
		return config_ct_tcp_closing;
	return entry->flags & CT_SEEN_REPLY ? config_ct_tcp_established : config_ct_tcp_syn;
}

/* An RST closes both sides. Nobody here checks its sequence number, so a forged one would do: a
 * connection that was answered is remembered for some time yet, and for as long as it goes on.
 */
static __always_inline void ct_note_tcp(struct ct_entry *entry, struct flow *flow, bool sent)
{
	__u8 seen = sent ? entry->tcp_flags_sent : entry->tcp_flags_received;
	__u8 others = sent ? entry->tcp_flags_received : entry->tcp_flags_sent;

	if (flow->tcp_flags & TCP_RST) {
		if (others & TCP_ACK && (entry->flags & CT_CLOSING) != CT_CLOSING)
			entry->flags |= CT_RESET;
		entry->flags |= CT_CLOSING;
	} else if (flow->tcp_flags & TCP_FIN) {
		entry->flags |= sent ? CT_CLOSING_LOCAL : CT_CLOSING_REMOTE;
	}
	if (!(flow->tcp_flags & ~seen))
		return;
	if (flow->tcp_flags & ~seen & (TCP_FIN | TCP_SYN | TCP_RST))
		flow->flags |= FLOW_REPORT;
	if (sent)
		entry->tcp_flags_sent = seen | flow->tcp_flags;
	else
		entry->tcp_flags_received = seen | flow->tcp_flags;
}

/* The counters are not atomic: each direction of a connection keeps to one CPU, so close
 * to nothing is lost, and two locked additions would cost a fifth of the walk.
 */
static __always_inline void ct_count(struct ct_entry *entry, const struct flow *flow, bool sent)
{
	if (sent) {
		entry->packets_sent++;
		entry->bytes_sent += flow->length;
	} else {
		entry->packets_received++;
		entry->bytes_received += flow->length;
	}
}

/* One more packet of a known connection; `side` is EGRESS if the endpoint sent it. */
static __always_inline void ct_touch(struct ct_entry *entry, struct flow *flow, __u8 side)
{
	bool sent = side == DIRECTION_EGRESS;
	bool reply = entry->direction != side;
	__u32 expires;

	flow->state = reply ? TRACE_REASON_REPLY : TRACE_REASON_ESTABLISHED;
	if (reply && !(entry->flags & CT_SEEN_REPLY)) {
		entry->flags |= CT_SEEN_REPLY;
		flow->flags |= FLOW_REPORT;
	}
	if (flow->protocol == IPPROTO_TCP)
		ct_note_tcp(entry, flow, sent);
	ct_count(entry, flow, sent);
	expires = flow->now + ct_timeout(entry, flow->protocol);
	if (entry->expires != expires) {
		entry->expires = expires;
		flow->flags |= FLOW_REFRESH;
	}
	/* One more: another CPU may be a jiffy ahead. */
	if ((__u16)(flow->now - entry->reported + 1) > config_trace_interval)
		flow->flags |= FLOW_REPORT;
	if (flow->flags & FLOW_REPORT)
		entry->reported = flow->now;
}

/* 0 or why the packet must be dropped. The caller has filled what policy said. */
static __always_inline int ct_create(struct flow *flow, const struct ct_key *key,
				     struct ct_entry *entry, __u8 side)
{
	bool sent = side == DIRECTION_EGRESS;
	int error;

	entry->direction = side;
	entry->reported = flow->now;
	entry->rev_nat = flow->rev_nat;
	entry->backend = flow->backend;
	entry->share = flow_share(flow);
	if (flow->protocol == IPPROTO_TCP)
		ct_note_tcp(entry, flow, sent);
	ct_count(entry, flow, sent);
	entry->expires = flow->now + ct_timeout(entry, flow->protocol);
	flow->flags |= FLOW_REPORT;
	error = ct_put(key, entry);
	if (!error)
		return 0;
	flow->error = -error;
	return DROP_CT_INSERT_FAILED;
}
