/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Checksum: what becomes of one when a part of what it is over is exchanged. */
#pragma once

#include "net.h"

/* An Internet checksum after the 32 bits `from` became `to` (RFC 1624, equation 3). */
static __always_inline __u16 checksum_after(__u16 checksum, __be32 from, __be32 to)
{
	__u32 sum = (__u16)~checksum;

	sum += (__u16)~from + (__u16) ~(from >> 16) + (__u16)to + (to >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
