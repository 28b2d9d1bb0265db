/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Memory: which backend a flow to a Service was given. It stands in conntrack, under the addresses
 * that the client uses.
 */
#pragma once

#include "conntrack.h"

/* A packet of the flow, `side` says who sent it (EGRESS: the client): what is remembered lives as
 * long as the connection's own entries, whose times are the same.
 */
static __always_inline void memory_touch(const struct flow *flow, struct ct_memory *memory,
					 __u8 side)
{
	__u32 expires = flow->now + config_ct_any;

	if (flow->flags & FLOW_ERROR) /* is no packet of it */
		return;
	if (flow->tcp_flags & TCP_RST)
		memory->flags |= CT_CLOSING | CT_RESET;
	else if (flow->tcp_flags & TCP_FIN)
		memory->flags |= side == DIRECTION_EGRESS ? CT_CLOSING_LOCAL : CT_CLOSING_REMOTE;
	if (flow->protocol == IPPROTO_TCP) {
		if (memory->flags & CT_RESET)
			expires = flow->now + config_ct_tcp_reset;
		else if ((memory->flags & CT_CLOSING) == CT_CLOSING)
			expires = flow->now + config_ct_tcp_syn;
		else
			expires = flow->now + config_ct_tcp_established;
	}
	if (memory->expires != expires)
		memory->expires = expires;
}

/* Where the client's flow to `flow->original` is remembered. */
static __always_inline void memory_key(struct ct_key *key, const union address *client,
				       __be16 client_port, const struct flow *flow)
{
	key->local = *client;
	key->remote = flow->original;
	key->local_port = client_port;
	key->remote_port = flow->original_port;
	key->protocol = flow->protocol;
}

/* The backend answers: what it closes, and that the flow goes on, its client may say nothing of.
 * `flow` shows the Service again.
 */
__function int memory_answers(struct flow *flow)
{
	struct ct_key key = {};
	struct ct_entry *memory;

	if (!flow)
		return 0;
	memory_key(&key, &flow->destination, flow->destination_port, flow);
	memory = ct_find(&key, flow->now);
	if (memory && memory->flags & CT_MEMORY)
		memory_touch(flow, (struct ct_memory *)memory, DIRECTION_INGRESS);
	return 0;
}
