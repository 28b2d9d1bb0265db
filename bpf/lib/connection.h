/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connection: may this packet pass this endpoint, in this direction? A known connection
 * passes as long as the policy that allowed it stands; a new one asks policy.
 */
#pragma once

#include "conntrack.h"
#include "event.h"
#include "policy.h"

/* A packet's connection as the endpoint on `side` sees it; EGRESS is the sender's. */
struct connection {
	struct ct_key key;
	struct ct_entry *entry;   /* NULL = not known */
	struct ct_memory *memory; /* to a Service: the backend it was given; NULL = none */
	__u8 side;                /* enum direction */
};

static __always_inline void connection_key(struct ct_key *key, const struct flow *flow, __u8 side)
{
	const struct ct_key *tuple = flow->flags & FLOW_ERROR ? &flow->inner : &flow->tuple;

	if (side == DIRECTION_EGRESS)
		*key = *tuple;
	else
		ct_key_turn(key, tuple);
}

static __always_inline void connection_find(struct connection *connection, const struct flow *flow,
					    __u8 side)
{
	connection->side = side;
	connection_key(&connection->key, flow, side);
	connection->entry = ct_find(&connection->key, flow->now);
	connection->memory = NULL;
	if (connection->entry && connection->entry->flags & CT_MEMORY) {
		connection->memory = (struct ct_memory *)connection->entry;
		connection->entry = NULL;
	}
}

/* Answered under these very addresses, or opened by the other side: no Service is in it. */
static __always_inline bool connection_is_settled(const struct connection *connection,
						  const struct flow *flow)
{
	const struct ct_entry *entry = connection->entry;

	if (!entry || ct_opens(flow))
		return false;
	return entry->direction != connection->side || entry->flags & CT_SEEN_REPLY;
}

/* The other side's identity, as policy must see it: what the walk knows, else its address'.
 * Where the walk has asked for an endpoint of the address it knows its identity, or there
 * is none and the ipcache knows.
 */
static __always_inline __u32 connection_peer(struct flow *flow, const struct ct_key *key)
{
	bool source = address_equal(&key->remote, &flow->source);
	__u32 identity = source ? flow->source_identity : flow->destination_identity;

	if (!source && !address_equal(&key->remote, &flow->destination))
		return identity_of(&key->remote);
	if (identity)
		return identity;
	identity = ipcache_identity(&key->remote);
	/* The node's own name from outside is worth nothing. */
	return identity == IDENTITY_HOST && flow->flags & FLOW_OUTSIDE ? IDENTITY_WORLD : identity;
}

/* 0 or the reason to drop; in audit mode always 0, but told. */
static __always_inline int connection_ask(struct __ctx_buff *ctx, struct flow *flow,
					  const struct endpoint *endpoint, const struct ct_key *key)
{
	int reason = policy_ask(flow, endpoint, key);

	if (reason || flow->state == TRACE_REASON_NEW || flow->state == TRACE_REASON_REOPENED)
		event_verdict(ctx, flow, reason);
	return config_policy_audit ? 0 : reason;
}

/* Neither the node's own traffic to its pods (kubelet's probes) nor a pod's to itself. */
static __always_inline bool connection_is_free(const struct flow *flow, __u8 side)
{
	return flow->flags & FLOW_HAIRPIN ||
	       (side == DIRECTION_INGRESS && flow->source_identity == IDENTITY_HOST);
}

/* Of all that decides about a connection but its peer's identity. What it is compared with is read
 * before policy is asked: of a change in between the next packet is asked about again.
 */
static __always_inline __u32 connection_epoch(const struct node_state *state,
					      const struct endpoint *endpoint,
					      const struct ct_key *key)
{
	return state->policy_epoch + endpoint->epoch + epoch_of_policy(state, endpoint->policy) +
	       epoch_of_address(state, &key->remote);
}

/* With what it takes for the peer as well: the sum that an entry keeps. */
static __always_inline __u32 connection_whole_epoch(const struct node_state *state,
						    const struct endpoint *endpoint,
						    const struct ct_key *key, __u32 peer)
{
	return connection_epoch(state, endpoint, key) + epoch_of_identity(state, peer);
}

/* A row that is replaced is another's memory at once: was it this endpoint's all the while, whose
 * policy was asked, or not?
 */
static __always_inline bool connection_was_asked_of(const struct endpoint *endpoint,
						    const struct flow *flow,
						    const struct ct_key *key, bool asked)
{
	barrier(); /* what was read before is read once more */
	if (!endpoint_owns(endpoint, &key->local))
		return false;
	if (policy_is_asked(endpoint, flow->direction) != asked)
		return false;
	return !asked || endpoint->policy == flow->policy;
}

/* Who opens it, and whether policy lets him. 0 or the reason to drop; then `entry` is as it was,
 * for what is denied must be asked about again.
 */
static __always_inline int connection_judge(struct __ctx_buff *ctx, struct flow *flow,
					    const struct endpoint *endpoint,
					    const struct ct_key *key, struct ct_entry *entry)
{
	struct node_state *state = node_state_find();
	bool asked = policy_is_asked(endpoint, flow->direction);
	bool look = entry->expires; /* it is known, and so may be what the flow has of it */
	int reason = 0;
	__u32 epoch;

	if (!state)
		return DROP_POLICY_DENIED;
	epoch = connection_epoch(state, endpoint, key);
	if (look && !address_equal(&key->remote, &flow->source))
		flow->peer = identity_of(&key->remote);
	else if (asked || look)
		flow->peer = connection_peer(flow, key);
	epoch += epoch_of_identity(state, flow->peer);
	if (asked)
		reason = connection_ask(ctx, flow, endpoint, key);
	if (!reason && !connection_was_asked_of(endpoint, flow, key, asked))
		reason = DROP_ENDPOINT_NOT_READY;
	if (reason)
		return reason;
	entry->epoch = epoch;
	entry->policy = endpoint->policy;
	entry->identity = flow->peer;
	entry->rule = flow->rule;
	return 0;
}

/* It stands while the address is the node's, and the endpoint the same. */
static __always_inline void connection_note_free(struct ct_entry *entry,
						 const struct endpoint *endpoint,
						 const struct ct_key *key)
{
	struct node_state *state = node_state_find();

	entry->policy = endpoint->policy;
	if (state)
		entry->epoch = connection_whole_epoch(state, endpoint, key, entry->identity);
}

__function int connection_open(struct __ctx_buff *ctx, struct flow *flow,
			       const struct endpoint *endpoint, const struct ct_key *key,
			       __u32 side)
{
	struct scratch *scratch = scratch_here();
	struct ct_entry *entry;
	int reason;

	if (!flow || !endpoint || !key || !scratch)
		return DROP_POLICY_DENIED;
	entry = &scratch->entry; /* the chain of calls has no room for it on the stack */
	__builtin_memset(entry, 0, sizeof(*entry));
	if (flow->flags & FLOW_ELSEWHERE)
		flow->source_identity = IDENTITY_WORLD;
	if (connection_is_free(flow, side)) {
		entry->flags = CT_NODE_ORIGIN;
		entry->identity = flow->source_identity;
		connection_note_free(entry, endpoint, key);
		return ct_create(flow, key, entry, side);
	}
	flow->peer = side == DIRECTION_EGRESS ? flow->destination_identity : flow->source_identity;
	reason = connection_judge(ctx, flow, endpoint, key, entry);
	return reason ? reason : ct_create(flow, key, entry, side);
}

/* What allowed the connection may have changed: policy is asked about its opener again.
 * A denied one stays known, or its answers would pass for new connections.
 */
__function int connection_ask_again(struct __ctx_buff *ctx, struct flow *flow,
				    const struct endpoint *endpoint, const struct ct_key *key,
				    struct ct_entry *entry)
{
	int reason;
	__u8 side;

	if (!flow || !endpoint || !key || !entry)
		return DROP_POLICY_DENIED;
	side = flow->direction;
	flow->direction = entry->direction;
	if (flow->flags & FLOW_ELSEWHERE && flow->direction == DIRECTION_INGRESS)
		flow->source_identity = IDENTITY_WORLD;
	reason = connection_judge(ctx, flow, endpoint, key, entry);
	if (!reason)
		flow->direction = side;
	else if (side == entry->direction)
		entry->expires = flow->now + ct_timeout(entry, key->protocol);
	return reason;
}

static __always_inline bool connection_is_stale(const struct ct_entry *entry,
						const struct endpoint *endpoint,
						const struct ct_key *key)
{
	struct node_state *state = node_state_find();

	if (!state)
		return false;
	return entry->policy != endpoint->policy ||
	       entry->epoch != connection_whole_epoch(state, endpoint, key, entry->identity);
}

/* An error about a connection that this side does not know: policy decides about its ICMP type,
 * each time anew. The other side may know it, so the flow stays an error.
 */
__function int connection_unrelated(struct __ctx_buff *ctx, struct flow *flow,
				    const struct endpoint *endpoint, __u32 side)
{
	struct ct_key key;

	if (!flow || !endpoint)
		return DROP_POLICY_DENIED;
	flow->flags |= FLOW_REPORT;
	if (flow->flags & FLOW_ELSEWHERE)
		flow->source_identity = IDENTITY_WORLD;
	if (connection_is_free(flow, side) || !policy_is_asked(endpoint, side))
		return 0;
	if (side == DIRECTION_EGRESS)
		key = flow->tuple;
	else
		ct_key_turn(&key, &flow->tuple);
	flow->peer = connection_peer(flow, &key);
	return connection_ask(ctx, flow, endpoint, &key);
}

static __always_inline void connection_related(struct ct_entry *entry, struct flow *flow, __u8 side)
{
	flow->state = TRACE_REASON_RELATED;
	flow->flags |= FLOW_REPORT;
	ct_count(entry, flow, side == DIRECTION_EGRESS);
}

/* What the node itself opened, and something changed since: is it the node's still? */
static __always_inline bool connection_is_nodes(const struct flow *flow, const struct ct_key *key,
						__u8 side)
{
	return connection_is_free(flow, side) ||
	       (side == DIRECTION_EGRESS && identity_of(&key->remote) == IDENTITY_HOST);
}

/* Who opened it sends under another identity than when policy was asked: the tunnel tells of it
 * before the ipcache does.
 */
static __always_inline bool connection_has_other_peer(const struct ct_entry *entry,
						      const struct flow *flow, __u8 side)
{
	return side == DIRECTION_INGRESS && entry->direction == DIRECTION_INGRESS &&
	       flow->source_identity && flow->source_identity != entry->identity &&
	       !(flow->flags & (FLOW_ELSEWHERE | FLOW_ERROR));
}

/* One side of the walk: 0 or the reason to drop. Afterwards flow->rev_nat is the Service
 * whose address the receiver knows, if the packet answers what was sent to a Service.
 */
static __always_inline int connection_admit(struct __ctx_buff *ctx, struct flow *flow,
					    const struct endpoint *endpoint,
					    const struct connection *connection)
{
	struct ct_entry *entry = connection->entry;
	__u8 side = connection->side;
	int reason;

	flow->direction = side;
	flow->rule = 0;
	flow->policy = 0;
	if (endpoint->flags & ENDPOINT_NOT_READY)
		return DROP_ENDPOINT_NOT_READY;
	/* Answers come from backends: under the Service's own address nobody sends to its client.
	 */
	if (connection->memory && side == DIRECTION_INGRESS)
		return DROP_INVALID_SOURCE_IP;
	if (entry && entry->flags & CT_NODE_ORIGIN &&
	    connection_is_stale(entry, endpoint, &connection->key)) {
		if (connection_is_nodes(flow, &connection->key, side))
			connection_note_free(entry, endpoint, &connection->key);
		else
			entry = NULL; /* somebody else's by now: a new one */
	}
	if (!entry || (!(flow->flags & FLOW_ERROR) && ct_reopens(flow, entry, side))) {
		flow->state = entry ? TRACE_REASON_REOPENED : TRACE_REASON_NEW;
		reason = flow->flags & FLOW_ERROR
				 ? connection_unrelated(ctx, flow, endpoint, side)
				 : connection_open(ctx, flow, endpoint, &connection->key, side);
		flow->rev_nat = 0;
		return reason;
	}
	if (connection_is_stale(entry, endpoint, &connection->key) ||
	    connection_has_other_peer(entry, flow, side)) {
		reason = connection_ask_again(ctx, flow, endpoint, &connection->key, entry);
		if (reason)
			return reason;
	}
	flow->rule = entry->rule;
	flow->policy = entry->rule ? entry->policy : 0;
	/* A socket may reach one backend by way of several Services. */
	if (side == DIRECTION_EGRESS && entry->direction == side && entry->rev_nat != flow->rev_nat)
		entry->rev_nat = flow->rev_nat;
	flow->rev_nat = entry->direction != side ? entry->rev_nat : 0;
	if (flow->flags & FLOW_ERROR)
		connection_related(entry, flow, side);
	else
		ct_touch(entry, flow, side);
	return 0;
}
