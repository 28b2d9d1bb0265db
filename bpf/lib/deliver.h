/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Deliver: the last step. A packet goes to a pod of this node, into the tunnel, or to
 * the node's stack, counted and, where it is worth it, told.
 */
#pragma once

#include "answer.h"
#include "connection.h"
#include "drop.h"
#include "memory.h"
#include "parse.h"

#define IPV4_TTL       8
#define IPV6_HOP_LIMIT 7
#define TUNNEL_TTL     64

static __always_inline int deliver_to_stack(struct __sk_buff *skb, struct flow *flow, __u8 point)
{
	event_trace(skb, flow, point);
	metrics_count(0, flow->direction, flow->length);
	return TC_ACT_OK;
}

/* One hop less, as from any router. RFC 1624 for the one byte that changes. */
static __always_inline int deliver_hop(struct __sk_buff *skb, const struct flow *flow, __u8 *ip)
{
	if (flow->time_to_live <= 1)
		return DROP_TTL_EXCEEDED;
	if (flow_is_ipv6(flow)) {
		ip[IPV6_HOP_LIMIT]--;
		/* No checksum in the header takes up the change: where the NIC has summed the
		 * packet (CHECKSUM_COMPLETE) its sum does.
		 */
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
	} else {
		__u16 *checksum = (__u16 *)(ip + IPV4_CHECKSUM);
		__u32 sum = *checksum + bpf_htons(0x0100);

		*checksum = sum + (sum >= 0xffff);
		ip[IPV4_TTL]--;
	}
	return 0;
}

/* What a router does to a packet: one hop less, and the addresses of the next link. */
static __always_inline int deliver_route(struct __sk_buff *skb, const struct flow *flow,
					 const struct endpoint *endpoint)
{
	__u8 *packet = packet_header(skb, 0, ETH_HLEN + IPV4_HEADER_MIN);

	if (!packet)
		return DROP_WRITE_ERROR;
	if (endpoint) {
		__builtin_memcpy(packet, endpoint->mac, ETH_ALEN);
		__builtin_memcpy(packet + ETH_ALEN, endpoint->host_mac, ETH_ALEN);
	}
	return deliver_hop(skb, flow, packet + ETH_HLEN);
}

/* The receiving half of the walk, before the packet goes on: 0 or the reason to drop. */
static __always_inline int deliver_admit(struct __sk_buff *skb, struct flow *flow,
					 const struct endpoint *endpoint)
{
	struct connection connection;
	int reason;

	flow->destination_endpoint = endpoint->id;
	flow->destination_identity = endpoint->identity;
	connection_find(&connection, flow, DIRECTION_INGRESS);
	reason = connection_admit(skb, flow, endpoint, &connection);
	if (!reason && flow->rev_nat) {
		reason = answer_client(skb, flow);
		if (!reason &&
		    (flow->flags & FLOW_REFRESH || flow->tcp_flags & (TCP_FIN | TCP_RST)))
			memory_answers(flow);
	}
	if (!reason && flow->flags & FLOW_FIRST_FRAGMENT)
		reason = fragment_remember(flow);
	/* The kernel would free it after we had told of its arrival. */
	if (!reason && endpoint->flags & ENDPOINT_DOWN)
		reason = DROP_REDIRECT_FAILED;
	return reason;
}

/* To a pod of this node, straight into its namespace. */
static __always_inline int deliver_to_endpoint(struct __sk_buff *skb, struct flow *flow,
					       const struct endpoint *endpoint)
{
	int reason = deliver_route(skb, flow, endpoint);

	if (reason)
		return drop(skb, flow, reason);
	event_trace(skb, flow, TRACE_TO_ENDPOINT);
	metrics_count(0, DIRECTION_INGRESS, flow->length);
	if (bpf_redirect_peer(endpoint->device, 0) != TC_ACT_REDIRECT)
		return drop(skb, flow, DROP_REDIRECT_FAILED);
	return TC_ACT_REDIRECT;
}

/* Whether the tunnel can carry it. If not, the node's stack gets it: its route has the same
 * limit, and it answers or cuts as the sender asked.
 */
static __always_inline bool deliver_fits_tunnel(struct __sk_buff *skb, const struct flow *flow)
{
	__u32 length = skb->len - ETH_HLEN;

	if (skb->gso_size)
		length = flow->transport - ETH_HLEN + skb->gso_size +
			 (flow->protocol == IPPROTO_TCP ? flow->tcp_header : PORTS_HEADER_MIN);
	return length <= config_tunnel_mtu;
}

/* 0 or the reason to drop. The other node learns the sender's identity from the tunnel's VNI. */
static __always_inline int deliver_set_tunnel(struct __sk_buff *skb, const union address *node,
					      __u32 identity)
{
	struct bpf_tunnel_key key = {.tunnel_id = identity, .tunnel_ttl = TUNNEL_TTL};
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (address_is_ipv4(node)) {
		key.remote_ipv4 = bpf_ntohl(node->words[3]);
	} else {
		__builtin_memcpy(key.remote_ipv6, node, sizeof(*node));
		flags = BPF_F_TUNINFO_IPV6;
	}
	return bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, flags) ? DROP_WRITE_ERROR : 0;
}

static __always_inline int deliver_to_tunnel(struct __sk_buff *skb, struct flow *flow,
					     const union address *node)
{
	int reason = deliver_route(skb, flow, NULL);

	if (!reason)
		reason = deliver_set_tunnel(skb, node, flow->source_identity);
	if (reason)
		return drop(skb, flow, reason);
	event_trace(skb, flow, TRACE_TO_OVERLAY);
	metrics_count(0, DIRECTION_EGRESS, flow->length);
	return bpf_redirect(config_tunnel_device, 0);
}
