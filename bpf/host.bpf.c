/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* On the node's underlay device: what arrives for pods without a tunnel. */
#include "lib/deliver.h"

/* A pod behind the tunnel does not come around it. Without a tunnel nothing is asked here:
 * who sends is only looked up when policy wants to know.
 */
static __always_inline int check_route(const struct __sk_buff *skb, struct flow *flow)
{
	return config_tunnel_device ? identify_received(flow, skb->ifindex) : 0;
}

static __always_inline int receive(struct __sk_buff *skb, struct flow *flow,
				   const struct endpoint *receiver)
{
	int reason = check_route(skb, flow);

	flow->destination_endpoint = receiver->id;
	if (!reason)
		reason = parse_transport(skb, flow);
	if (!reason)
		reason = deliver_admit(skb, flow, receiver);
	return reason ? drop(skb, flow, reason) : deliver_to_endpoint(skb, flow, receiver);
}

/* The node's stack takes the tunnel's packets from any device, and its own check of who may come
 * from where is off. So those from here are told by their hash, which the way through the stack
 * keeps and nobody outside can choose.
 */
static __always_inline void note_tunnel(struct __sk_buff *skb, struct flow *flow)
{
	if (!config_tunnel_token || flow->protocol != IPPROTO_UDP || flow->flags & FLOW_FRAGMENT)
		return;
	if (!parse_udp(skb, flow) && flow->destination_port == bpf_htons(config_tunnel_port))
		bpf_set_hash(skb, config_tunnel_token);
}

/* What is not for a pod is the stack's, also what we cannot read: it knows more protocols. */
SEC("tc")
int podwire_from_network(struct __sk_buff *skb)
{
	struct flow *flow = flow_begin(skb, DIRECTION_INGRESS);
	struct endpoint *receiver;
	int reason;

	if (!flow)
		return drop(skb, flow, DROP_INVALID_PACKET);
	flow->flags = FLOW_OUTSIDE;
	skb->mark = 0; /* a mark means something on this node only, never on the wire */
	if (skb->pkt_type != PACKET_HOST ||
	    (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)))
		return TC_ACT_OK;
	reason = parse_network(skb, flow);
	/* Our own addresses do not come from outside. */
	if (address_is_ours(&flow->source))
		return drop(skb, flow, DROP_INVALID_SOURCE_IP);
	receiver = endpoint_at(&flow->destination);
	/* A pod that is gone, or never was: the way in must not become the way out again. */
	if (!receiver && ipcache_is_nobody(ipcache_find(&flow->destination), IPCACHE_PODS))
		return drop(skb, flow, DROP_UNKNOWN_L3_TARGET);
	if (!receiver || endpoint_is_host(receiver)) {
		if (!reason)
			note_tunnel(skb, flow);
		return TC_ACT_OK;
	}
	return reason ? drop(skb, flow, reason) : receive(skb, flow, receiver);
}

/* What is for a pod of another node leaves by the tunnel or not at all, also where the stack
 * has no route for it yet and would send it the default way.
 */
SEC("tc")
int podwire_to_network(struct __sk_buff *skb)
{
	struct flow *flow = flow_begin(skb, DIRECTION_EGRESS);
	struct ipcache_entry *there;

	if (!flow)
		return drop(skb, flow, DROP_INVALID_PACKET);
	if (!config_tunnel_device || parse_network(skb, flow))
		return TC_ACT_OK;
	there = ipcache_find(&flow->destination);
	if (!there || address_is_zero(&there->tunnel))
		return TC_ACT_OK;
	return drop(skb, flow, DROP_NO_TUNNEL_ENDPOINT);
}

char _license[] SEC("license") = "Dual BSD/GPL";
