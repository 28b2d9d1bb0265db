/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses: 16 bytes everywhere, IPv4 as v4-mapped (RFC 4291, 2.5.5.2), so that
 * every map key and every event has one shape for both families.
 */
#pragma once

union address {
	__u8 bytes[16];
	__be32 words[4];
	__u64 halves[2];
	/* Aligned to 4: the kernel wants an LPM key's data directly behind its u32 length, and keys
	 * must have no holes. */
} __attribute__((packed, aligned(4)));
