/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* On the host side of each pod's veth: what a pod sends, and what reaches it through the
 * node's stack. One set of programs for all pods; the device says which pod it is.
 */
#include "lib/away.h"
#include "lib/balance.h"
#include "lib/deliver.h"
#include "lib/mark.h"

/* ICMPv6 with a source that is valid on this link only: none yet, or the one that goes with the
 * pod's hardware address. The node learns who asks, and one table of neighbours serves the whole
 * machine: invented ones would fill it.
 */
static __always_inline bool is_link_upkeep(const struct flow *flow, const struct endpoint *sender)
{
	union address own;

	if (flow->protocol != PROTOCOL_ICMPV6 || !flow_is_ipv6(flow))
		return false;
	address_set_link_local(&own, sender->mac);
	return address_is_zero(&flow->source) || address_equal(&flow->source, &own);
}

/* Does the stack keep it? It would forward a neighbour message to any other address, and
 * policy would never have been asked.
 */
static __always_inline bool ends_on_link(const struct flow *flow)
{
	struct endpoint *there;

	if (address_is_link_group(&flow->destination) || address_is_link_local(&flow->destination))
		return true;
	there = endpoint_at(&flow->destination);
	return there && endpoint_is_host(there);
}

static __always_inline bool has_source_mac(struct __sk_buff *skb, const struct endpoint *endpoint)
{
	struct ethhdr *eth = packet_header(skb, 0, sizeof(*eth));

	/* Words, for a memcmp would go byte by byte. */
	return eth && *(__u32 *)eth->h_source == *(__u32 *)endpoint->mac &&
	       *(__u16 *)(eth->h_source + 4) == *(__u16 *)(endpoint->mac + 4);
}

/* Nobody sends under another's name. */
static __always_inline int parse_from_pod(struct __sk_buff *skb, struct flow *flow,
					  const struct endpoint *sender)
{
	bool own;
	int reason;

	if (skb->vlan_present)
		return DROP_UNSUPPORTED_L2;
	if (!has_source_mac(skb, sender))
		return DROP_INVALID_SOURCE_MAC;
	reason = parse_network(skb, flow);
	if (reason)
		return reason;
	own = endpoint_owns(sender, &flow->source);
	if (!own && !is_link_upkeep(flow, sender))
		return DROP_INVALID_SOURCE_IP;
	reason = parse_transport(skb, flow);
	if (!reason)
		reason = parse_neighbour(flow);
	if (reason)
		return reason;
	if (flow->flags & FLOW_NEIGHBOUR && !ends_on_link(flow))
		flow->flags &= ~FLOW_NEIGHBOUR;
	if (!own && !(flow->flags & FLOW_NEIGHBOUR))
		return DROP_INVALID_SOURCE_IP;
	/* Nor does it complain about what it was never sent. */
	if (flow->flags & FLOW_ERROR && !address_equal(&flow->inner.local, &flow->source))
		return DROP_INVALID_SOURCE_IP;
	return 0;
}

/* A pod's answer to itself, by way of a Service. */
static __always_inline int send_to_itself(struct __sk_buff *skb, struct flow *flow,
					  const struct endpoint *sender)
{
	int reason = balance_hairpin_back(skb, flow);

	if (!reason && flow->flags & FLOW_FIRST_FRAGMENT)
		reason = fragment_remember(flow);
	flow->destination_identity = sender->identity;
	flow->destination_endpoint = sender->id;
	return reason ? drop(skb, flow, reason) : deliver_to_endpoint(skb, flow, sender);
}

/* Where no pod may send to, whatever its policy says. 0 or the reason to drop. */
static __always_inline int check_destination(const struct flow *flow)
{
	/* The node's own address would make it a node's word where somebody masquerades. */
	if (config_tunnel_device && flow->protocol == IPPROTO_UDP &&
	    flow->destination_port == bpf_htons(config_tunnel_port))
		return DROP_ENCAP_PROHIBITED;
	return address_is_special(&flow->destination) ? DROP_UNKNOWN_L3_TARGET : 0;
}

/* A pod's own address is no Service's, which need not be asked for then. */
static __always_inline bool is_pod(const struct endpoint *receiver,
				   const struct ipcache_entry *there)
{
	if (receiver)
		return !endpoint_is_host(receiver);
	return there && there->identity > IDENTITY_RESERVED_MAX &&
	       there->identity <= IDENTITY_CLUSTER_MAX;
}

static __always_inline int send(struct __sk_buff *skb, struct flow *flow,
				const struct endpoint *sender)
{
	struct ipcache_entry *there = NULL;
	struct endpoint *receiver = NULL;
	struct connection connection;
	int reason = 0;
	__u32 service;

	connection_find(&connection, flow, DIRECTION_EGRESS);
	if (!connection.memory)
		receiver = endpoint_at(&flow->destination);
	if (!receiver && !connection.memory && !connection.entry)
		there = ipcache_exact(&flow->destination);
	if (!connection_is_settled(&connection, flow) && !is_pod(receiver, there)) {
		reason = balance(skb, flow, connection.memory);
		if (reason)
			return drop(skb, flow, reason);
		if (flow->rev_nat) {
			reason = check_destination(flow); /* nor by way of a Service */
			if (reason)
				return drop(skb, flow, reason);
			connection_find(&connection, flow, DIRECTION_EGRESS);
			receiver = endpoint_at(&flow->destination);
			there = NULL;
		}
	}
	if (connection.memory) /* of a Service that is not there any more */
		receiver = endpoint_at(&flow->destination);
	service = flow->rev_nat;
	if (receiver) {
		flow->destination_identity = receiver->identity;
		flow->destination_endpoint = receiver->id;
	} else {
		there = away_find(flow, sender, &connection, there);
	}
	if (!(flow->flags & FLOW_HAIRPIN))
		reason = connection_admit(skb, flow, sender, &connection);
	if (!reason && flow->flags & FLOW_FIRST_FRAGMENT)
		reason = fragment_remember(flow);
	if (reason)
		return drop(skb, flow, reason);
	if (flow->flags & FLOW_CHOSEN)
		balance_remember(flow, service);
	if (flow->state == TRACE_REASON_REOPENED)
		connection.entry = NULL; /* another is in its place */
	if (!receiver)
		return away_send(skb, flow, there, &connection);
	if (endpoint_is_host(receiver))
		return deliver_to_stack(skb, flow, TRACE_TO_HOST);
	metrics_count(0, DIRECTION_EGRESS, flow->length);
	reason = deliver_admit(skb, flow, receiver);
	return reason ? drop(skb, flow, reason) : deliver_to_endpoint(skb, flow, receiver);
}

/* Which address the pod says is its own: the node would learn it, see is_link_upkeep. 0 = none, it
 * only asks whether somebody has one (RFC 5227). 0 or the reason to drop.
 */
static __always_inline int check_arp(struct __sk_buff *skb, const struct endpoint *sender)
{
	__be32 address;
	__u8 *arp;

	if (!has_source_mac(skb, sender))
		return DROP_INVALID_SOURCE_MAC;
	arp = packet_header(skb, ETH_HLEN, ARP_LENGTH);
	if (!arp)
		return DROP_INVALID_PACKET;
	address = *(__be32 *)(arp + ARP_SENDER);
	return !address || address == sender->ipv4.words[3] ? 0 : DROP_INVALID_SOURCE_IP;
}

SEC("tc")
int podwire_from_pod(struct __sk_buff *skb)
{
	struct flow *flow = flow_begin(skb, DIRECTION_EGRESS);
	struct endpoint *sender = endpoint_on(skb->ifindex);
	int reason;

	skb->mark = 0; /* a mark means something on this node only, never in a pod */
	if (!flow || !sender)
		return drop(skb, flow, DROP_ENDPOINT_NOT_READY);
	flow->source_identity = sender->identity;
	flow->source_endpoint = sender->id;
	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		reason = check_arp(skb, sender);
		return reason ? drop(skb, flow, reason) : TC_ACT_OK;
	}
	reason = parse_from_pod(skb, flow, sender);
	if (reason)
		return drop(skb, flow, reason);
	if (flow->flags & FLOW_NEIGHBOUR)
		return TC_ACT_OK;
	if (sender->flags & ENDPOINT_NOT_READY)
		return drop(skb, flow, DROP_ENDPOINT_NOT_READY);
	reason = check_destination(flow);
	if (reason)
		return drop(skb, flow, reason);
	if (address_is_hairpin(&flow->destination))
		return send_to_itself(skb, flow, sender);
	return send(skb, flow, sender);
}

/* Who sends what comes through the node's stack: the node itself, if no device received it, or who
 * a proxy of it speaks for.
 */
static __always_inline int identify_stack(struct __sk_buff *skb, struct flow *flow)
{
	struct endpoint *pod;

	if (address_is_hairpin(&flow->source))
		return DROP_INVALID_SOURCE_IP;
	if (!skb->ingress_ifindex) {
		flow->source_identity = mark_sender(skb);
		return 0;
	}
	pod = endpoint_at(&flow->source);
	if (pod) {
		/* One of our pods sends from its own device, and from nowhere else. */
		if (endpoint_is_host(pod) || pod->device != skb->ingress_ifindex)
			return DROP_INVALID_SOURCE_IP;
		flow->source_endpoint = pod->id;
		flow->source_identity = pod->identity;
		return 0;
	}
	return identify_received(flow, skb->ingress_ifindex);
}

static __always_inline int parse_to_pod(struct __sk_buff *skb, struct flow *flow,
					const struct endpoint *receiver)
{
	int reason = parse_network(skb, flow);

	/* Who sends is known before ports are: fragments are remembered on somebody's account. */
	if (!reason)
		reason = identify_stack(skb, flow);
	if (!reason)
		reason = parse_transport(skb, flow);
	if (!reason)
		reason = parse_neighbour(flow);
	if (skb->ingress_ifindex)
		flow->flags &= ~FLOW_NEIGHBOUR; /* only the node itself is on this link */
	if (reason || flow->flags & FLOW_NEIGHBOUR)
		return reason;
	return endpoint_owns(receiver, &flow->destination) ? 0 : DROP_UNKNOWN_L3_TARGET;
}

SEC("tc")
int podwire_to_pod(struct __sk_buff *skb)
{
	struct flow *flow = flow_begin(skb, DIRECTION_INGRESS);
	struct endpoint *receiver = endpoint_on(skb->ifindex);
	int reason;

	if (!flow || !receiver)
		return drop(skb, flow, DROP_ENDPOINT_NOT_READY);
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	flow->destination_endpoint = receiver->id;
	reason = parse_to_pod(skb, flow, receiver);
	if (flow->flags & FLOW_NEIGHBOUR)
		return TC_ACT_OK;
	if (!reason)
		reason = deliver_admit(skb, flow, receiver);
	if (reason)
		return drop(skb, flow, reason);
	return deliver_to_stack(skb, flow, TRACE_TO_ENDPOINT);
}

char _license[] SEC("license") = "Dual BSD/GPL";
