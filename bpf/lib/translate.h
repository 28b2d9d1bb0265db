/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Translate: write another address and port into a packet, with all checksums, and into
 * its flow. Each function returns 0 or the reason to drop.
 */
#pragma once

#include "address.h"
#include "checksum.h"
#include "flow.h"
#include "packet.h"

enum translate_side {
	TRANSLATE_SOURCE,
	TRANSLATE_DESTINATION,
};

#define TCP_CHECKSUM     16
#define UDP_CHECKSUM     6
#define ICMP_CHECKSUM    2
#define IPV4_CHECKSUM    10
#define IPV4_SOURCE      12
#define IPV4_DESTINATION 16
#define IPV6_SOURCE      8
#define IPV6_DESTINATION 24
#define ICMP_INNER       8

/* Where an address stands, from the beginning of its IP header. */
static __always_inline __u32 address_offset(bool ipv6, enum translate_side side)
{
	if (ipv6)
		return side == TRANSLATE_SOURCE ? IPV6_SOURCE : IPV6_DESTINATION;
	return side == TRANSLATE_SOURCE ? IPV4_SOURCE : IPV4_DESTINATION;
}

/* Offset of the transport checksum; 0 = no header in this packet. */
static __always_inline __u32 checksum_offset(const struct flow *flow)
{
	if (flow->flags & FLOW_FRAGMENT)
		return 0;
	switch (flow->protocol) {
	case IPPROTO_TCP:
		return flow->transport + TCP_CHECKSUM;
	case IPPROTO_UDP:
		return flow->transport + UDP_CHECKSUM;
	default:
		return flow->transport + ICMP_CHECKSUM;
	}
}

/* UDP's 0 means that there is no checksum. */
static __always_inline __u64 checksum_flags(const struct flow *flow)
{
	return flow->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/* The header's own checksum takes up the change, so the sum over the packet stays as it is. */
static __always_inline int translate_ipv4(struct __ctx_buff *ctx, const struct flow *flow,
					  enum translate_side side, __be32 from, __be32 to)
{
	__u32 checksum = flow->protocol == IPPROTO_ICMP ? 0 : checksum_offset(flow);
	__u8 *ip = packet_header(ctx, ETH_HLEN, IPV4_HEADER_MIN);

	if (!ip)
		return DROP_WRITE_ERROR;
	*(__be32 *)(ip + (side == TRANSLATE_SOURCE ? IPV4_SOURCE : IPV4_DESTINATION)) = to;
	*(__u16 *)(ip + IPV4_CHECKSUM) = checksum_after(*(__u16 *)(ip + IPV4_CHECKSUM), from, to);
	if (checksum && ctx_replace_l4(ctx, checksum, from, to,
				       BPF_F_PSEUDO_HDR | checksum_flags(flow) | sizeof(to)))
		return DROP_L4_CHECKSUM;
	return 0;
}

/* IPv6 has no header checksum that would cancel the change in the NIC's sum; kernels that
 * know of it have a flag (6.16), others refuse it and are asked again without.
 */
static __always_inline int translate_ipv6(struct __ctx_buff *ctx, const struct flow *flow,
					  enum translate_side side, const union address *to)
{
	const union address *from = side == TRANSLATE_SOURCE ? &flow->source : &flow->destination;
	__u64 flags = BPF_F_PSEUDO_HDR | checksum_flags(flow);
	__u32 checksum = checksum_offset(flow);
	__s64 change = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);

	if (ctx_store(ctx, ETH_HLEN + address_offset(true, side), to, sizeof(*to)))
		return DROP_WRITE_ERROR;
	if (!checksum)
		return 0;
	if (ctx_replace_l4(ctx, checksum, 0, change, flags | BPF_F_IPV6) &&
	    ctx_replace_l4(ctx, checksum, 0, change, flags))
		return DROP_L4_CHECKSUM;
	return 0;
}

static __always_inline int translate_port(struct __ctx_buff *ctx, const struct flow *flow,
					  enum translate_side side, __be16 from, __be16 to)
{
	__u32 at = flow->transport + (side == TRANSLATE_SOURCE ? 0 : 2);
	__be16 *place;

	if (from == to || !flow_has_ports(flow) || flow->flags & FLOW_FRAGMENT)
		return 0;
	place = packet_at(ctx, at, sizeof(to));
	if (!place)
		return DROP_WRITE_ERROR;
	*place = to;
	if (ctx_replace_l4(ctx, checksum_offset(flow), from, to, checksum_flags(flow) | sizeof(to)))
		return DROP_L4_CHECKSUM;
	return 0;
}

__function int translate(struct __ctx_buff *ctx, struct flow *flow, __u32 side,
			 const union address *to, __u32 port)
{
	union address *address;
	__be16 *own;
	int reason;

	if (!flow || !to)
		return DROP_INVALID_PACKET;
	address = side == TRANSLATE_SOURCE ? &flow->source : &flow->destination;
	own = side == TRANSLATE_SOURCE ? &flow->source_port : &flow->destination_port;
	if (address_is_ipv4(to) == flow_is_ipv6(flow))
		return DROP_UNROUTABLE; /* a Service and its backends are of one family */
	reason = flow_is_ipv6(flow)
			 ? translate_ipv6(ctx, flow, side, to)
			 : translate_ipv4(ctx, flow, side, address->words[3], to->words[3]);
	if (!reason)
		reason = translate_port(ctx, flow, side, *own, port);
	if (reason)
		return reason;
	*address = *to;
	if (flow_has_ports(flow))
		*own = port;
	return 0;
}

/* The packet inside an ICMP error: its address and port on `side`. Its own transport
 * checksum is left, for nobody can check one over a packet that is cut off.
 */
__function int translate_inner(struct __ctx_buff *ctx, struct flow *flow, __u32 side,
			       const union address *to, __u32 service_port)
{
	__u32 inner, checksum, at, ports;
	union address *address;
	__be16 *own;
	__be16 port = service_port;
	bool ipv6;

	if (!flow || !to)
		return DROP_INVALID_PACKET;
	ipv6 = flow_is_ipv6(flow);
	inner = flow->transport + ICMP_INNER;
	checksum = flow->transport + ICMP_CHECKSUM;
	at = inner + address_offset(ipv6, side);
	ports = flow->inner_transport;
	address = side == TRANSLATE_SOURCE ? &flow->inner.remote : &flow->inner.local;
	own = side == TRANSLATE_SOURCE ? &flow->inner.remote_port : &flow->inner.local_port;
	if (address_is_ipv4(to) == ipv6)
		return DROP_UNROUTABLE;
	if (ipv6) {
		__s64 change = bpf_csum_diff((__be32 *)address, sizeof(*address), (__be32 *)to,
					     sizeof(*to), 0);

		if (ctx_store(ctx, at, to, sizeof(*to)) ||
		    ctx_replace_l4(ctx, checksum, 0, change, 0))
			return DROP_WRITE_ERROR;
	} else {
		/* The inner header's own checksum takes up the change, ICMP's sum stays. */
		if (ctx_store(ctx, at, &to->words[3], sizeof(__be32)) ||
		    ctx_replace_l3(ctx, inner + IPV4_CHECKSUM, address->words[3], to->words[3]))
			return DROP_WRITE_ERROR;
	}
	if (side == TRANSLATE_DESTINATION)
		ports += 2;
	if (ctx_store(ctx, ports, &port, sizeof(port)) ||
	    ctx_replace_l4(ctx, checksum, *own, port, sizeof(port)))
		return DROP_WRITE_ERROR;
	*address = *to;
	*own = port;
	return 0;
}
