/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a program is called with: a frame in the driver, before there is a packet in the stack. It
 * has the names of skb.h. Bytes are read and written by helpers that Linux has since 5.18; nobody
 * but this program has summed up anything yet, so checksums are those in the frame.
 */
#pragma once

#include "../lib/checksum.h"

#define __ctx_buff xdp_md

#define CTX_SECTION "xdp" /* of a program that is compiled for both */
#define CTX_PASS    XDP_PASS
#define CTX_DROP    XDP_DROP

#define CTX_LENGTH_MAX 0xffff

static __always_inline __u32 ctx_length(const struct __ctx_buff *ctx)
{
	return (ctx->data_end - ctx->data) & CTX_LENGTH_MAX;
}

static __always_inline __u32 ctx_segment(const struct __ctx_buff *ctx)
{
	return 0; /* a driver that joins segments does not give them to a program of one buffer */
}

static __always_inline int ctx_load(const struct __ctx_buff *ctx, __u32 offset, void *to,
				    __u32 length)
{
	return bpf_xdp_load_bytes((struct __ctx_buff *)ctx, offset, to, length);
}

static __always_inline int ctx_store(struct __ctx_buff *ctx, __u32 offset, const void *from,
				     __u32 length)
{
	return bpf_xdp_store_bytes(ctx, offset, (void *)from, length);
}

static __always_inline __be16 ctx_protocol(const struct __ctx_buff *ctx)
{
	__be16 protocol = 0;

	ctx_load(ctx, 2 * ETH_ALEN, &protocol, sizeof(protocol));
	return protocol;
}

static __always_inline __u32 ctx_device(const struct __ctx_buff *ctx)
{
	return ctx->ingress_ifindex;
}

/* There is one piece, and what is not in it is not there. */
static __always_inline int ctx_pull(struct __ctx_buff *ctx, __u32 length)
{
	return -1;
}

static __always_inline int ctx_replace_l3(struct __ctx_buff *ctx, __u32 offset, __be32 from,
					  __be32 to)
{
	__u16 checksum;

	if (ctx_load(ctx, offset, &checksum, sizeof(checksum)))
		return -1;
	checksum = checksum_after(checksum, from, to);
	return ctx_store(ctx, offset, &checksum, sizeof(checksum));
}

static __always_inline int ctx_replace_l4(struct __ctx_buff *ctx, __u32 offset, __u64 from,
					  __u64 to, __u64 flags)
{
	bool zero_is_none = flags & BPF_F_MARK_MANGLED_0;
	__u16 checksum;

	if (ctx_load(ctx, offset, &checksum, sizeof(checksum)))
		return -1;
	if (zero_is_none && !checksum)
		return 0;
	/* Without a size `to` is a sum already, from which what is gone was taken. */
	checksum = checksum_after(checksum, flags & BPF_F_HDR_FIELD_MASK ? from : ~0U, to);
	if (zero_is_none && !checksum)
		checksum = 0xffff;
	return ctx_store(ctx, offset, &checksum, sizeof(checksum));
}
