/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Balance: Services per packet, for what did not pass the socket hook. On the way to a
 * Service the destination becomes a backend; answer.h does the way back.
 */
#pragma once

#include "answer.h"
#include "connection.h"

/* The backend this flow was given before; NULL = it needs (another) one. */
static __always_inline struct backend *balance_recall(struct flow *flow, struct ct_entry *memory)
{
	struct backend *backend = memory ? backend_find(memory->backend) : NULL;

	if (!backend)
		return NULL;
	if (ct_opens(flow) && (memory->flags & CT_CLOSING || backend_is_terminating(backend)))
		return NULL;
	flow->backend = memory->backend;
	if (flow->tcp_flags & (TCP_FIN | TCP_RST))
		memory->flags |= CT_CLOSING_LOCAL;
	memory->expires = flow->now + (flow->protocol == IPPROTO_TCP ? config_ct_tcp_established
								     : config_ct_any);
	return backend;
}

static __always_inline __u32 balance_number(const struct flow *flow,
					    const struct frontend *frontend)
{
	return frontend_has_affinity(frontend) ? backend_number_of(flow->source.words[3])
					       : bpf_get_prandom_u32();
}

static __always_inline struct backend *balance_choose(struct flow *flow, const struct ct_key *key,
						      const struct frontend *frontend)
{
	struct ct_entry memory = {};
	struct backend *backend;

	/* An error is about a flow that has a backend, or about none. */
	if (flow->flags & FLOW_ERROR)
		return NULL;
	backend = backend_choose(frontend, balance_number(flow, frontend), &flow->backend);
	if (!backend)
		return NULL;
	memory.backend = flow->backend;
	memory.rev_nat = frontend->rev_nat;
	memory.direction = DIRECTION_EGRESS;
	memory.expires = flow->now + ct_timeout(&memory, flow->protocol);
	bpf_map_update_elem(&podwire_conntrack, key, &memory, BPF_ANY);
	return backend;
}

/* The client is its own backend: it must not see its own address as the source. */
static __always_inline int balance_hairpin(struct __sk_buff *skb, struct flow *flow)
{
	union address hairpin;

	flow->flags |= FLOW_HAIRPIN;
	address_set_hairpin(&hairpin, flow_is_ipv6(flow));
	return translate(skb, flow, TRANSLATE_SOURCE, &hairpin, flow->source_port);
}

/* 0 or the reason to drop. If the destination is a Service, it is a backend afterwards. */
__function int balance(struct __sk_buff *skb, struct flow *flow)
{
	struct frontend *frontend;
	struct backend *backend;
	struct ct_key key;
	int reason;

	if (!flow)
		return DROP_INVALID_PACKET;
	key = flow->flags & FLOW_ERROR ? flow->inner : flow->tuple;
	frontend = frontend_find(&key.remote, key.remote_port, key.protocol);
	if (!frontend)
		return 0;
	flow->original = key.remote;
	flow->original_port = key.remote_port;
	flow->rev_nat = frontend->rev_nat;
	key.scope = CT_SERVICE;
	backend = balance_recall(flow, ct_find(&key, flow->now));
	if (!backend)
		backend = balance_choose(flow, &key, frontend);
	if (!backend)
		return DROP_NO_BACKEND;
	if (flow->flags & FLOW_ERROR) {
		reason = translate_inner(skb, flow, TRANSLATE_SOURCE, &backend->address,
					 backend->port);
		if (reason)
			return reason;
	}
	reason = translate(skb, flow, TRANSLATE_DESTINATION, &backend->address, backend->port);
	if (!reason && address_equal(&flow->source, &flow->destination))
		reason = balance_hairpin(skb, flow);
	return reason;
}

/* A pod answers itself: both addresses are what the client half of it expects. */
__function int balance_hairpin_back(struct __sk_buff *skb, struct flow *flow)
{
	struct ct_entry *entry;
	union address client;
	struct ct_key key;
	int reason;

	if (!flow)
		return DROP_INVALID_PACKET;
	client = flow->source;
	key = flow->tuple;
	entry = ct_find(&key, flow->now);
	flow->flags |= FLOW_HAIRPIN;
	if (!entry || !entry->rev_nat)
		return DROP_UNROUTABLE;
	flow->rev_nat = entry->rev_nat;
	ct_touch(entry, flow, DIRECTION_EGRESS);
	reason = answer_client(skb, flow);
	if (!reason)
		reason = translate(skb, flow, TRANSLATE_DESTINATION, &client,
				   flow->destination_port);
	return reason;
}
