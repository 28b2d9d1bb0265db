/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Away: what a pod sends to somebody who is no endpoint of this node. */
#pragma once

#include "deliver.h"
#include "neighbour.h"

/* May the node be made to ask for a neighbour? Who has answered is known, a node or a pod of one
 * makes one neighbour a node, and of a flow that goes on it is asked once a second.
 */
static __always_inline int away_admit(struct __sk_buff *skb, struct flow *flow,
				      const struct ct_entry *entry)
{
	if (flow->destination_identity && identity_is_of_cluster(flow->destination_identity))
		return 0;
	if (entry && entry->flags & CT_LEAVES && !(flow->flags & FLOW_REFRESH))
		return 0;
	return neighbour_admit(skb, flow);
}

/* Beyond this node, if there is anybody. */
static __always_inline int away_send(struct __sk_buff *skb, struct flow *flow,
				     const struct ipcache_entry *there,
				     const struct connection *connection)
{
	struct ct_entry *entry = connection->entry;
	int reason = 0;

	if (ipcache_is_nobody(there, IPCACHE_PODS | IPCACHE_SERVICES))
		return drop(skb, flow, DROP_UNKNOWN_L3_TARGET);
	if (config_tunnel_device && there && !address_is_zero(&there->tunnel) &&
	    deliver_fits_tunnel(skb, flow))
		return deliver_to_tunnel(skb, flow, &there->tunnel);
	if (!connection_is_settled(connection, flow))
		reason = away_admit(skb, flow, entry);
	/* Only where it differs: the flags are the other direction's as well. */
	if (entry && reason && entry->flags & CT_LEAVES)
		entry->flags &= ~CT_LEAVES;
	else if (entry && !reason && !(entry->flags & CT_LEAVES))
		entry->flags |= CT_LEAVES;
	return reason ? drop(skb, flow, reason) : deliver_to_stack(skb, flow, TRACE_TO_STACK);
}

/* Who is there, if it is no endpoint of this node; `exact` is its address' own row, if that is
 * known. Without a tunnel a connection that has left before knows who, if nothing has changed for
 * it since: then NULL.
 */
static __always_inline struct ipcache_entry *away_find(struct flow *flow,
						       const struct endpoint *sender,
						       const struct connection *connection,
						       struct ipcache_entry *exact)
{
	const struct ct_entry *entry = connection->entry;
	struct ipcache_entry *there = exact;

	/* Not one that the other side opened, which may have come by another way, nor one that is
	 * opened anew.
	 */
	if (!config_tunnel_device && entry && entry->flags & CT_LEAVES &&
	    entry->direction == DIRECTION_EGRESS && !ct_reopens(flow, entry, DIRECTION_EGRESS) &&
	    !connection_is_stale(entry, sender, &connection->key)) {
		flow->destination_identity = entry->identity;
		return NULL;
	}
	if (!there)
		there = ipcache_find(&flow->destination);
	flow->destination_identity = there ? there->identity : IDENTITY_WORLD;
	return there;
}
