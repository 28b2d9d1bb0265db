/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a program is called with: a packet in the stack. The same headers are compiled with this one
 * in front, or with xdp.h, which has the same names; global functions have the type in their
 * signature.
 *
 * All offsets are from the Ethernet header.
 */
#pragma once

#include "../lib/net.h"

#define __ctx_buff __sk_buff

#define CTX_SECTION "tc" /* of a program that is compiled for both */
#define CTX_PASS    TC_ACT_OK
#define CTX_DROP    TC_ACT_SHOT

/* All of it, also where it is many segments that are not cut yet. */
static __always_inline __u32 ctx_length(const struct __ctx_buff *ctx)
{
	return ctx->len;
}

/* Bytes of payload a segment will have; 0 = it is one packet already. */
static __always_inline __u32 ctx_segment(const struct __ctx_buff *ctx)
{
	return ctx->gso_size;
}

static __always_inline __be16 ctx_protocol(const struct __ctx_buff *ctx)
{
	return ctx->protocol;
}

static __always_inline __u32 ctx_device(const struct __ctx_buff *ctx)
{
	return ctx->ifindex;
}

/* Have `length` bytes in one piece; pointers into the packet die. 0, or there are not so many. */
static __always_inline int ctx_pull(struct __ctx_buff *ctx, __u32 length)
{
	return bpf_skb_pull_data(ctx, length);
}

static __always_inline int ctx_load(const struct __ctx_buff *ctx, __u32 offset, void *to,
				    __u32 length)
{
	return bpf_skb_load_bytes(ctx, offset, to, length);
}

static __always_inline int ctx_store(struct __ctx_buff *ctx, __u32 offset, const void *from,
				     __u32 length)
{
	return bpf_skb_store_bytes(ctx, offset, from, length, 0);
}

/* An IP header's checksum after 32 bits of it changed. */
static __always_inline int ctx_replace_l3(struct __ctx_buff *ctx, __u32 offset, __be32 from,
					  __be32 to)
{
	return bpf_l3_csum_replace(ctx, offset, from, to, sizeof(to));
}

/* A transport checksum after as many bytes changed as the flags say, or after the sum `to` was
 * added to what it is over. Flags as bpf_l4_csum_replace has them.
 */
static __always_inline int ctx_replace_l4(struct __ctx_buff *ctx, __u32 offset, __u64 from,
					  __u64 to, __u64 flags)
{
	return bpf_l4_csum_replace(ctx, offset, from, to, flags);
}
