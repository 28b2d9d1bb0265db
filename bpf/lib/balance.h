/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Balance: Services per packet, for what did not pass the socket hook. On the way to a
 * Service the destination becomes a backend; answer.h does the way back.
 */
#pragma once

#include "answer.h"
#include "connection.h"
#include "memory.h"

/* Nothing of any Service has changed since: no other row need be asked. */
static __always_inline bool balance_knows(const struct flow *flow, const struct ct_memory *memory)
{
	return memory && memory->epoch == flow->service_epoch &&
	       !(ct_opens(flow) && memory->flags & CT_CLOSING);
}

/* Something has: is it still this backend, under its old number, that the Service gave? A flow that
 * is opened anew is given one anew.
 */
static __always_inline struct backend *balance_recall(struct flow *flow, struct ct_memory *memory,
						      const struct frontend *frontend)
{
	struct backend *backend;

	if (!memory || ct_opens(flow) || memory->rev_nat != frontend->rev_nat)
		return NULL;
	backend = backend_find(memory->backend);
	if (!backend || !address_equal(&backend->address, &memory->address) ||
	    backend->port != memory->port)
		return NULL;
	memory->epoch = flow->service_epoch;
	flow->backend = memory->backend;
	return backend;
}

static __always_inline __u32 balance_number(const struct flow *flow,
					    const struct frontend *frontend)
{
	return frontend_has_affinity(frontend) ? backend_number_of(flow->source.words[3])
					       : bpf_get_prandom_u32();
}

static __always_inline struct slot *balance_choose(struct flow *flow, struct frontend *frontend)
{
	struct slot *slot;

	/* An error is about a flow that has a backend, or about none. */
	if (flow->flags & FLOW_ERROR)
		return NULL;
	slot = slot_choose(frontend, balance_number(flow, frontend));
	if (!slot)
		return NULL;
	flow->flags |= FLOW_CHOSEN;
	flow->backend = slot->backend;
	return slot;
}

/* The client is its own backend: it must not see its own address as the source. */
static __always_inline int balance_hairpin(struct __ctx_buff *ctx, struct flow *flow)
{
	union address hairpin;

	flow->flags |= FLOW_HAIRPIN;
	address_set_hairpin(&hairpin, flow_is_ipv6(flow));
	return translate(ctx, flow, TRANSLATE_SOURCE, &hairpin, flow->source_port);
}

/* A backend becomes the destination. 0 or the reason to drop. */
static __always_inline int balance_to(struct __ctx_buff *ctx, struct flow *flow,
				      const union address *address, __be16 port)
{
	int reason = 0;

	if (flow->flags & FLOW_ERROR)
		reason = translate_inner(ctx, flow, TRANSLATE_SOURCE, address, port);
	if (!reason)
		reason = translate(ctx, flow, TRANSLATE_DESTINATION, address, port);
	if (!reason && address_equal(&flow->source, &flow->destination))
		reason = balance_hairpin(ctx, flow);
	return reason;
}

/* Which backend, where the flow remembers none or a Service has changed since. 0 or the reason to
 * drop; `*memory` is NULL afterwards if what it says is past.
 */
static __always_inline int balance_ask(struct flow *flow, struct ct_memory **memory,
				       struct frontend *frontend, union address *address,
				       __be16 *port)
{
	struct backend *backend = balance_recall(flow, *memory, frontend);
	struct slot *slot;

	flow->rev_nat = frontend->rev_nat;
	if (backend) {
		*address = backend->address;
		*port = backend->port;
		return 0;
	}
	*memory = NULL;
	slot = balance_choose(flow, frontend);
	if (!slot)
		return DROP_NO_BACKEND;
	*address = slot->address;
	*port = slot->port;
	return 0;
}

/* 0 or the reason to drop. If the destination is a Service, it is a backend afterwards; `memory` is
 * what the flow remembers of it, NULL = nothing.
 */
__function int balance(struct __ctx_buff *ctx, struct flow *flow, struct ct_memory *memory)
{
	struct frontend *frontend;
	union address address;
	struct ct_key key;
	int reason = 0;
	__be16 port;

	if (!flow)
		return DROP_INVALID_PACKET;
	key = flow->flags & FLOW_ERROR ? flow->inner : flow->tuple;
	flow->service_epoch = service_epoch();
	if (memory && balance_knows(flow, memory)) {
		address = memory->address;
		port = memory->port;
		flow->rev_nat = memory->rev_nat;
		flow->backend = memory->backend;
	} else {
		frontend = frontend_find(&key.remote, key.remote_port, key.protocol);
		if (!frontend)
			return 0;
		reason = balance_ask(flow, &memory, frontend, &address, &port);
	}
	flow->original = key.remote;
	flow->original_port = key.remote_port;
	if (reason)
		return reason;
	if (memory)
		memory_touch(flow, memory, DIRECTION_EGRESS);
	return balance_to(ctx, flow, &address, port);
}

/* Policy has admitted the flow: its other packets go to the same backend. Before, a pod could fill
 * the table with what it may not send.
 */
__function int balance_remember(struct flow *flow, __u32 rev_nat)
{
	struct ct_entry entry = {};
	struct ct_memory *memory = (struct ct_memory *)&entry;
	struct ct_key key = {};

	if (!flow)
		return 0;
	/* Who is its own backend has another source by now. */
	memory_key(&key, flow->flags & FLOW_HAIRPIN ? &flow->destination : &flow->source,
		   flow->source_port, flow);
	memory->expires = flow->now + ct_timeout(&entry, flow->protocol);
	memory->share = flow_share(flow);
	memory->epoch = flow->service_epoch;
	memory->rev_nat = rev_nat;
	memory->direction = DIRECTION_EGRESS;
	memory->flags = CT_MEMORY;
	memory->address = flow->destination;
	memory->port = flow->destination_port;
	memory->backend = flow->backend;
	ct_put(&key, &entry);
	return 0;
}

/* A pod answers itself: both addresses are what the client half of it expects. */
__function int balance_hairpin_back(struct __ctx_buff *ctx, struct flow *flow)
{
	struct ct_entry *entry;
	union address client;
	struct ct_key key;
	int reason;

	if (!flow)
		return DROP_INVALID_PACKET;
	client = flow->source;
	key = flow->flags & FLOW_ERROR ? flow->inner : flow->tuple;
	entry = ct_find(&key, flow->now);
	flow->flags |= FLOW_HAIRPIN;
	if (!entry || !entry->rev_nat)
		return DROP_UNROUTABLE;
	flow->rev_nat = entry->rev_nat;
	if (!(flow->flags & FLOW_ERROR))
		ct_touch(entry, flow, DIRECTION_EGRESS);
	reason = answer_client(ctx, flow);
	if (!reason && flow->flags & FLOW_ERROR)
		reason = translate_inner(ctx, flow, TRANSLATE_SOURCE, &client,
					 flow->inner.remote_port);
	if (!reason)
		reason = translate(ctx, flow, TRANSLATE_DESTINATION, &client,
				   flow->destination_port);
	return reason;
}
