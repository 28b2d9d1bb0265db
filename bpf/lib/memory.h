/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Memory: which backend a flow to a Service was given. It stands in conntrack, under the addresses
 * that the client uses.
 */
#pragma once

#include "conntrack.h"

/* What the flow remembers lives as long as its connection, and is to be forgotten soon after. */
static __always_inline void memory_touch(const struct flow *flow, struct ct_memory *memory)
{
	__u32 expires = flow->now + config_ct_any;

	if (flow->flags & FLOW_ERROR) /* is no packet of it */
		return;
	if (flow->tcp_flags & (TCP_FIN | TCP_RST))
		memory->flags |= CT_CLOSING;
	if (flow->protocol == IPPROTO_TCP)
		expires = flow->now + (memory->flags & CT_CLOSING ? config_ct_tcp_syn
								  : config_ct_tcp_established);
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

/* The backend closes: its client may not send anything any more that would say so. `flow` shows the
 * Service again.
 */
__function int memory_closes(struct flow *flow)
{
	struct ct_key key = {};
	struct ct_entry *memory;
	__u32 expires;

	if (!flow)
		return 0;
	memory_key(&key, &flow->destination, flow->destination_port, flow);
	memory = ct_find(&key, flow->now);
	if (!memory || !(memory->flags & CT_MEMORY))
		return 0;
	memory->flags |= CT_CLOSING;
	expires = flow->now + config_ct_tcp_syn;
	if (memory->expires > expires)
		memory->expires = expires;
	return 0;
}
