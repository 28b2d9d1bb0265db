/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* On the tunnel device: what nodes send each other for their pods. The VNI is the
 * sender's identity.
 */
#include "lib/deliver.h"
#include "lib/mark.h"

static __always_inline bool is_node_identity(__u32 identity)
{
	return identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_KUBE_APISERVER;
}

/* What a stranger's packet says inside is not worth telling: who sent it is, and to whom. */
static __always_inline void tell_outer(struct flow *flow, const union address *sender)
{
	bool ipv4 = address_is_ipv4(sender);

	flow->source = *sender;
	flow->destination.halves[0] =
		ipv4 ? config_node_ipv4.halves[0] : config_node_ipv6.halves[0];
	flow->destination.halves[1] =
		ipv4 ? config_node_ipv4.halves[1] : config_node_ipv6.halves[1];
	flow->protocol = IPPROTO_UDP;
	flow->destination_port = bpf_htons(config_tunnel_port);
	flow->flags = ipv4 ? 0 : FLOW_IPV6;
}

/* Only nodes may tell identities, from the cluster's own network, and none may claim to be this
 * one. 0 or the reason to drop.
 */
static __always_inline int identify_tunnel(struct __sk_buff *skb, struct flow *flow)
{
	struct bpf_tunnel_key key = {};
	union address node = {};
	__u32 hash = skb->hash;

	if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, 0)) {
		address_set_ipv4(&node, bpf_htonl(key.remote_ipv4));
	} else if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6)) {
		__builtin_memcpy(&node, key.remote_ipv6, sizeof(node));
	} else {
		return DROP_NO_TUNNEL_KEY;
	}
	bpf_set_hash_invalid(skb); /* what follows wants the inner packet's */
	if ((config_tunnel_token && hash != config_tunnel_token) ||
	    key.tunnel_id == IDENTITY_UNKNOWN || key.tunnel_id > IDENTITY_CLUSTER_MAX ||
	    !is_node_identity(ipcache_identity(&node))) {
		tell_outer(flow, &node);
		return DROP_INVALID_IDENTITY;
	}
	flow->source_identity =
		key.tunnel_id == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : key.tunnel_id;
	return 0;
}

static __always_inline int parse_from_tunnel(struct __sk_buff *skb, struct flow *flow)
{
	int reason = parse_network(skb, flow);

	if (reason)
		return reason;
	/* Our own addresses do not come from outside. */
	if (address_is_ours(&flow->source))
		return DROP_INVALID_SOURCE_IP;
	return identify_tunnel(skb, flow);
}

SEC("tc")
int podwire_from_overlay(struct __sk_buff *skb)
{
	struct flow *flow = flow_begin(skb, DIRECTION_INGRESS);
	struct endpoint *receiver;
	int reason;

	skb->mark = 0; /* a mark means something on this node only, never on the wire */
	if (!flow)
		return drop(skb, flow, DROP_INVALID_PACKET);
	reason = parse_from_tunnel(skb, flow);
	if (reason)
		return drop(skb, flow, reason);
	/* The inner frame bears addresses of another link. */
	bpf_skb_change_type(skb, PACKET_HOST);
	receiver = endpoint_at(&flow->destination);
	if (!receiver && !address_is_node(&flow->destination))
		return drop(skb, flow, DROP_UNKNOWN_L3_TARGET);
	if (!receiver || endpoint_is_host(receiver))
		return deliver_to_stack(skb, flow, TRACE_TO_HOST);
	flow->destination_endpoint = receiver->id;
	reason = parse_transport(skb, flow);
	if (!reason)
		reason = deliver_admit(skb, flow, receiver);
	return reason ? drop(skb, flow, reason) : deliver_to_endpoint(skb, flow, receiver);
}

/* Whose packet the stack sends this way: the node's own, a pod's that it had to cut, or that of
 * somebody it forwards for, who is no more than the address says. 0 or the reason to drop.
 */
static __always_inline int identify_sender(struct __sk_buff *skb, struct flow *flow)
{
	struct endpoint *pod = endpoint_at(&flow->source);
	int reason;

	if (pod && !endpoint_is_host(pod)) {
		/* One of our pods sends from its own device, and from nowhere else. */
		if (skb->ingress_ifindex && skb->ingress_ifindex != pod->device)
			return DROP_INVALID_SOURCE_IP;
		flow->source_identity = pod->identity;
		flow->source_endpoint = pod->id;
		return 0;
	}
	if (!skb->ingress_ifindex) {
		flow->source_identity = mark_sender(skb);
		return 0;
	}
	if (pod)
		return DROP_INVALID_SOURCE_IP;
	reason = identify_received(flow, skb->ingress_ifindex);
	if (flow->flags & FLOW_ELSEWHERE)
		flow->source_identity = IDENTITY_WORLD;
	return reason;
}

/* A pod's packets come with their tunnel key. What the node's stack sends this way gets
 * one here.
 */
SEC("tc")
int podwire_to_overlay(struct __sk_buff *skb)
{
	struct flow *flow = flow_begin(skb, DIRECTION_EGRESS);
	struct bpf_tunnel_key key = {};
	struct ipcache_entry *there;
	int reason;

	if (!flow)
		return drop(skb, flow, DROP_INVALID_PACKET);
	if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, 0) ||
	    !bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6))
		return TC_ACT_OK;
	reason = parse_network(skb, flow);
	if (reason)
		return drop(skb, flow, reason);
	/* The stack's upkeep of the link ends in the device, which has nobody to send it to. */
	if (address_is_link_group(&flow->destination))
		return TC_ACT_OK;
	reason = identify_sender(skb, flow);
	if (reason)
		return drop(skb, flow, reason);
	there = ipcache_find(&flow->destination);
	if (!there || address_is_zero(&there->tunnel))
		return drop(skb, flow, DROP_NO_TUNNEL_ENDPOINT);
	flow->destination_identity = there->identity;
	reason = deliver_set_tunnel(skb, &there->tunnel, flow->source_identity);
	return reason ? drop(skb, flow, reason) : deliver_to_stack(skb, flow, TRACE_TO_OVERLAY);
}

char _license[] SEC("license") = "Dual BSD/GPL";
