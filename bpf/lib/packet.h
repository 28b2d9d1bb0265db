/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packet: bytes in place. What is not in the linear part is pulled there first; writing
 * through these pointers is allowed, the verifier sees to it that nobody else shares them.
 */
#pragma once

#include "net.h"

#define TRANSPORT_MASK  1023 /* what the verifier is shown of an offset */
#define IPV4_HEADER_MIN 20

/* In assembly, for clang-16 otherwise adds to the context pointer first, which the verifier
 * (6.18) refuses.
 */
static __always_inline void *packet_begin(const struct __ctx_buff *ctx)
{
	void *begin;

	asm volatile("%[begin] = *(u32 *)(%[ctx] + %[at])"
		     : [begin] "=r"(begin)
		     : [ctx] "r"(ctx), [at] "i"(offsetof(struct __ctx_buff, data)));
	return begin;
}

static __always_inline void *packet_end(const struct __ctx_buff *ctx)
{
	void *end;

	asm volatile("%[end] = *(u32 *)(%[ctx] + %[at])"
		     : [end] "=r"(end)
		     : [ctx] "r"(ctx), [at] "i"(offsetof(struct __ctx_buff, data_end)));
	return end;
}

/* `length` bytes at `offset`, or NULL if the packet ends before. Earlier pointers die. */
static __always_inline void *packet_header(struct __ctx_buff *ctx, __u32 offset, __u32 length)
{
	void *start = packet_begin(ctx) + offset;

	if (start + length <= packet_end(ctx))
		return start;
	if (ctx_pull(ctx, offset + length))
		return NULL;
	start = packet_begin(ctx) + offset;
	return start + length <= packet_end(ctx) ? start : NULL;
}

/* The offset as verifiers up to Linux 6.1 must see it: clang-16 knows a bound of it already, leaves
 * the mask out and keeps the number on the stack, where they forget its bound. So it is masked anew
 * for each use.
 */
static __always_inline __u32 packet_offset(__u32 offset)
{
	barrier_var(offset);
	return offset & TRANSPORT_MASK;
}

/* packet_header for an offset that is not constant, at most TRANSPORT_MASK. */
static __always_inline void *packet_at(struct __ctx_buff *ctx, __u32 offset, __u32 length)
{
	void *start = packet_begin(ctx) + packet_offset(offset);

	if (start + length <= packet_end(ctx))
		return start;
	if (ctx_pull(ctx, packet_offset(offset) + length))
		return NULL;
	start = packet_begin(ctx) + packet_offset(offset);
	return start + length <= packet_end(ctx) ? start : NULL;
}
