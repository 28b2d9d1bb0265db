/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Parse: from bytes to a flow, once. Each function returns 0 or why the packet must be
 * dropped. Headers are read in place; what is not in the linear part is pulled there.
 */
#pragma once

#include "address.h"
#include "fragment.h"
#include "inner.h"
#include "packet.h"

#define IPV4_OPTIONS_MAX  40
#define IPV4_LOOSE_ROUTE  131
#define IPV4_STRICT_ROUTE 137
#define TCP_HEADER_MIN    20
#define TCP_DATA_OFFSET   12
#define TCP_FLAGS_OFFSET  13
#define PORTS_HEADER_MIN  8 /* UDP's and ICMP's */
#define IPV6_HEADER       40
#define ND_HOP_LIMIT      255

/* The sender may not choose the way: the address policy was asked about must be the last hop. */
__function int parse_ipv4_options(struct __ctx_buff *ctx, __u32 length)
{
	__u8 options[IPV4_OPTIONS_MAX] = {};
	__u32 at = 0;
	__u32 last = length - 1; /* very large where there are none */

	/* clang-16 folds two checks into one whose bound Linux 6.1 to 6.18 do not see. */
	barrier_var(last);
	if (last >= sizeof(options) || ctx_load(ctx, ETH_HLEN + IPV4_HEADER_MIN, options, last + 1))
		return DROP_INVALID_PACKET;
	for (int i = 0; i < IPV4_OPTIONS_MAX; i++) {
		__u8 kind, size;

		if (at >= length || at >= sizeof(options) - 1)
			return 0;
		kind = options[at];
		if (kind == 0)
			return 0;
		if (kind == IPV4_LOOSE_ROUTE || kind == IPV4_STRICT_ROUTE)
			return DROP_INVALID_PACKET;
		size = kind == 1 ? 1 : options[at + 1];
		if (!size)
			return DROP_INVALID_PACKET;
		at += size;
	}
	return 0;
}

static __always_inline int parse_ipv4(struct __ctx_buff *ctx, struct flow *flow)
{
	struct iphdr *ip = packet_header(ctx, ETH_HLEN, sizeof(*ip));
	__u32 header, total, fragment;

	if (!ip) {
		flow->flags |= FLOW_TRUNCATED;
		return DROP_INVALID_PACKET;
	}
	address_set_ipv4(&flow->source, ip->saddr);
	address_set_ipv4(&flow->destination, ip->daddr);
	flow->protocol = ip->protocol;
	flow->time_to_live = ip->ttl;
	flow->fragment_id = ip->id;
	fragment = bpf_ntohs(ip->frag_off) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET);
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	flow->transport = ETH_HLEN + header;

	if (ip->version != 4 || header < sizeof(*ip))
		return DROP_INVALID_PACKET;
	/* A segment to be cut later (GSO) may be larger than its length field can say. */
	if (!ctx_segment(ctx) && (total < header || ETH_HLEN + total > ctx_length(ctx))) {
		flow->flags |= FLOW_TRUNCATED;
		return DROP_INVALID_PACKET;
	}
	flow->end = ctx_segment(ctx) ? ctx_length(ctx) : ETH_HLEN + total;
	if (fragment)
		flow->flags |=
			fragment & IPV4_FRAGMENT_OFFSET ? FLOW_FRAGMENT : FLOW_FIRST_FRAGMENT;
	if (header > sizeof(*ip))
		return parse_ipv4_options(ctx, header - sizeof(*ip));
	return 0;
}

/* The fragment header: an atomic fragment (whole in itself) is none. */
static __always_inline void parse_ipv6_fragment(struct flow *flow, const __u8 *header)
{
	__u16 place = header[2] << 8 | header[3];

	__builtin_memcpy(&flow->fragment_id, header + 4, sizeof(flow->fragment_id));
	if (place & 0xfff8)
		flow->flags |= FLOW_FRAGMENT;
	else if (place & 1)
		flow->flags |= FLOW_FIRST_FRAGMENT;
}

__function int parse_extensions(struct __ctx_buff *ctx, struct flow *flow)
{
	bool fragmented = false;
	__u32 offset;
	__u8 next;

	if (!flow)
		return DROP_INVALID_PACKET;
	offset = flow->transport;
	next = flow->protocol;
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		__u8 header[8];

		flow->protocol = next;
		flow->transport = offset;
		if (!is_extension(next))
			return 0;
		/* What follows in a later fragment is payload, whatever it looks like. */
		if (flow->flags & FLOW_FRAGMENT)
			return 0;
		if (offset > TRANSPORT_MAX || offset + 8 > flow->end ||
		    ctx_load(ctx, offset, header, 8)) {
			flow->flags |= FLOW_TRUNCATED;
			return DROP_INVALID_EXTENSION_HEADER;
		}
		/* The sender may not choose the way, see parse_ipv4_options. */
		if (next == PROTOCOL_ROUTING && header[3])
			return DROP_INVALID_EXTENSION_HEADER;
		if (next == PROTOCOL_FRAGMENT) {
			if (fragmented)
				return DROP_INVALID_EXTENSION_HEADER;
			fragmented = true;
			parse_ipv6_fragment(flow, header);
			offset += 8;
		} else if (next == PROTOCOL_AUTH) {
			offset += (header[1] + 2) * 4;
		} else {
			offset += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	return DROP_INVALID_EXTENSION_HEADER;
}

static __always_inline int parse_ipv6(struct __ctx_buff *ctx, struct flow *flow)
{
	struct ipv6hdr *ip = packet_header(ctx, ETH_HLEN, sizeof(*ip));

	flow->flags |= FLOW_IPV6;
	if (!ip) {
		flow->flags |= FLOW_TRUNCATED;
		return DROP_INVALID_PACKET;
	}
	address_set_ipv6(&flow->source, &ip->saddr);
	address_set_ipv6(&flow->destination, &ip->daddr);
	flow->protocol = ip->nexthdr;
	flow->time_to_live = ip->hop_limit;
	flow->transport = ETH_HLEN + sizeof(*ip);

	/* A v4-mapped address on the wire would pass for an IPv4 one in every map. */
	if (ip->version != 6 || address_is_ipv4(&flow->source) ||
	    address_is_ipv4(&flow->destination))
		return DROP_INVALID_PACKET;
	if (!ctx_segment(ctx) &&
	    ETH_HLEN + sizeof(*ip) + bpf_ntohs(ip->payload_len) > ctx_length(ctx)) {
		flow->flags |= FLOW_TRUNCATED;
		return DROP_INVALID_PACKET;
	}
	flow->end = ctx_segment(ctx) ? ctx_length(ctx)
				     : ETH_HLEN + sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (is_extension(flow->protocol))
		return parse_extensions(ctx, flow);
	return 0;
}

static __always_inline int parse_network(struct __ctx_buff *ctx, struct flow *flow)
{
	if (ctx_protocol(ctx) == bpf_htons(ETH_P_IP))
		return parse_ipv4(ctx, flow);
	if (ctx_protocol(ctx) == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(ctx, flow);
	return DROP_UNSUPPORTED_L3;
}

/* `length` bytes of the transport header, or NULL if the packet ends before. */
static __always_inline void *parse_header(struct __ctx_buff *ctx, const struct flow *flow,
					  __u32 length)
{
	if (flow->transport + length > flow->end)
		return NULL;
	return packet_at(ctx, flow->transport, length);
}

static __always_inline bool icmp_is_error(bool ipv6, __u8 type)
{
	if (ipv6)
		return type >= ICMPV6_UNREACHABLE && type <= ICMPV6_PARAMETER;
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
}

/* Echo: the identifier stands in the port of the side that asked. Any other message has two
 * ports, its kind and one that no echo has with it: what was allowed for one kind, in one
 * direction, must not pass for another.
 */
static __always_inline void parse_echo(struct flow *flow, const __u8 *header)
{
	__be16 identifier;

	__builtin_memcpy(&identifier, header + 4, sizeof(identifier));
	if (flow_is_echo_request(flow)) {
		flow->source_port = identifier;
		flow->tuple.asks = CT_LOCAL_ASKS;
	} else if (flow_is_echo_reply(flow)) {
		flow->destination_port = identifier;
		flow->tuple.asks = CT_REMOTE_ASKS;
	} else if (!icmp_is_error(flow_is_ipv6(flow), flow->icmp_type)) {
		flow->source_port = ICMP_NO_ECHO;
		flow->destination_port = bpf_htons(flow->icmp_type << 8 | flow->icmp_code);
	}
}

static __always_inline int parse_icmp(struct __ctx_buff *ctx, struct flow *flow)
{
	__u8 *header = parse_header(ctx, flow, PORTS_HEADER_MIN);

	if (!header)
		return DROP_CT_INVALID_HEADER;
	flow->icmp_type = header[0];
	flow->icmp_code = header[1];
	parse_echo(flow, header);
	if (icmp_is_error(flow_is_ipv6(flow), flow->icmp_type))
		return parse_inner(ctx, flow);
	return 0;
}

static __always_inline void parse_ports(struct flow *flow, const __u8 *header)
{
	flow->source_port = *(__be16 *)header;
	flow->destination_port = *(__be16 *)(header + 2);
}

static __always_inline int parse_tcp(struct __ctx_buff *ctx, struct flow *flow)
{
	__u8 *header = parse_header(ctx, flow, TCP_HEADER_MIN);

	if (!header)
		return DROP_CT_INVALID_HEADER;
	parse_ports(flow, header);
	flow->tcp_flags = header[TCP_FLAGS_OFFSET];
	flow->tcp_header = (header[TCP_DATA_OFFSET] >> 4) * 4;
	return flow->tcp_header < TCP_HEADER_MIN ? DROP_CT_INVALID_HEADER : 0;
}

static __always_inline int parse_udp(struct __ctx_buff *ctx, struct flow *flow)
{
	__u8 *header = parse_header(ctx, flow, PORTS_HEADER_MIN);

	if (!header)
		return DROP_CT_INVALID_HEADER;
	parse_ports(flow, header);
	return 0;
}

static __always_inline bool parse_is_icmp(const struct flow *flow)
{
	return flow->protocol == (flow_is_ipv6(flow) ? PROTOCOL_ICMPV6 : IPPROTO_ICMP);
}

static __always_inline int parse_transport(struct __ctx_buff *ctx, struct flow *flow)
{
	bool icmp = parse_is_icmp(flow);
	int reason;

	if (!icmp && !flow_has_ports(flow))
		return DROP_CT_UNKNOWN_PROTOCOL;
	if (flow->flags & FLOW_FRAGMENT)
		return fragment_recall(flow);
	if (flow->transport > TRANSPORT_MAX)
		return DROP_INVALID_EXTENSION_HEADER;
	if (flow->protocol == IPPROTO_TCP)
		reason = parse_tcp(ctx, flow);
	else
		reason = icmp ? parse_icmp(ctx, flow) : parse_udp(ctx, flow);
	if (reason == DROP_CT_INVALID_HEADER)
		flow->flags |= FLOW_TRUNCATED;
	if (!reason && flow->flags & FLOW_FIRST_FRAGMENT)
		return fragment_note(flow);
	return reason;
}

/* Link-local upkeep, for the node's stack and not for policy: neighbour discovery and
 * multicast listening. Hop limit 255 proves that it was sent on this very link.
 */
static __always_inline int parse_neighbour(struct flow *flow)
{
	if (!flow_is_ipv6(flow) || flow->protocol != PROTOCOL_ICMPV6 || flow->flags & FLOW_FRAGMENT)
		return 0;
	switch (flow->icmp_type) {
	case ICMPV6_NEIGHBOUR_SOL:
	case ICMPV6_NEIGHBOUR_ADV:
	case ICMPV6_ROUTER_SOL:
		if (flow->time_to_live != ND_HOP_LIMIT)
			return DROP_FORBIDDEN_ICMPV6;
		flow->flags |= FLOW_NEIGHBOUR;
		return 0;
	case ICMPV6_MLD_QUERY ... ICMPV6_MLD_DONE:
	case ICMPV6_MLD2_REPORT:
		if (flow->time_to_live != 1)
			return DROP_FORBIDDEN_ICMPV6;
		flow->flags |= FLOW_NEIGHBOUR;
		return 0;
	case ICMPV6_ROUTER_ADV:
	case ICMPV6_REDIRECT:
		return DROP_FORBIDDEN_ICMPV6;
	}
	return 0;
}
