/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Inner: the packet that an ICMP error carries, which says what the error is about.
 */
#pragma once

#include "address.h"
#include "flow.h"

#define EXTENSIONS_MAX 8
#define TRANSPORT_MAX  512 /* no sane chain of headers reaches further */

static __always_inline bool is_extension(__u8 next)
{
	return next == PROTOCOL_HOPOPTS || next == PROTOCOL_ROUTING || next == PROTOCOL_AUTH ||
	       next == PROTOCOL_FRAGMENT || next == PROTOCOL_DSTOPTS;
}

/* The transport header of an inner IPv6 packet, behind what extension headers it had; -1 if it is
 * not there.
 */
__function int parse_inner_extensions(struct __ctx_buff *ctx, struct flow *flow, __u32 offset)
{
	__u8 next;

	if (!flow)
		return -1;
	next = flow->inner.protocol;
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		__u8 header[8];

		flow->inner.protocol = next;
		if (!is_extension(next))
			return offset;
		if (offset > 2 * TRANSPORT_MAX || ctx_load(ctx, offset, header, 8))
			return -1;
		if (next == PROTOCOL_FRAGMENT && ((header[2] << 8 | header[3]) & 0xfff8))
			return -1; /* not the first: no ports */
		if (next == PROTOCOL_FRAGMENT)
			offset += 8;
		else
			offset += next == PROTOCOL_AUTH ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		next = header[0];
	}
	return -1;
}

/* An inner packet's header: what was sent, so its source is where the error goes to. Its addresses
 * are known whatever follows them.
 */
static __always_inline int parse_inner_network(struct __ctx_buff *ctx, struct flow *flow,
					       __u32 offset)
{
	int header;

	if (flow_is_ipv6(flow)) {
		struct ipv6hdr ip;

		if (ctx_load(ctx, offset, &ip, sizeof(ip)) || ip.version != 6)
			return -1;
		address_set_ipv6(&flow->inner.remote, &ip.saddr);
		address_set_ipv6(&flow->inner.local, &ip.daddr);
		flow->inner.protocol = ip.nexthdr;
		header = parse_inner_extensions(ctx, flow, offset + sizeof(ip));
	} else {
		struct iphdr ip;

		if (ctx_load(ctx, offset, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return -1;
		address_set_ipv4(&flow->inner.remote, ip.saddr);
		address_set_ipv4(&flow->inner.local, ip.daddr);
		flow->inner.protocol = ip.protocol;
		header = ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET) ? -1 : offset + ip.ihl * 4;
	}
	/* An error goes to who sent the packet, or it is about nothing. */
	return address_equal(&flow->inner.remote, &flow->destination) ? header : -1;
}

/* What an ICMP error is about. Without a whole inner header it is about no connection: no key has
 * protocol 0. Policy is asked for its type then.
 */
__function int parse_inner(struct __ctx_buff *ctx, struct flow *flow)
{
	__u8 request, ports[8];
	int offset;

	if (!flow)
		return DROP_INVALID_PACKET;
	flow->flags |= FLOW_ERROR;
	request = flow_is_ipv6(flow) ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST;
	offset = parse_inner_network(ctx, flow, flow->transport + 8);
	if (offset < 0 || offset + sizeof(ports) > flow->end ||
	    ctx_load(ctx, offset, ports, sizeof(ports))) {
		flow->inner.protocol = 0;
	} else if (flow->inner.protocol == IPPROTO_TCP || flow->inner.protocol == IPPROTO_UDP) {
		flow->inner_transport = offset;
		__builtin_memcpy(&flow->inner.remote_port, ports, 2);
		__builtin_memcpy(&flow->inner.local_port, ports + 2, 2);
	} else if (flow->inner.protocol == flow->protocol && ports[0] == request) {
		__builtin_memcpy(&flow->inner.remote_port, ports + 4, 2);
		flow->inner.asks = CT_REMOTE_ASKS;
	} else {
		flow->inner.protocol = 0;
	}
	return 0;
}
