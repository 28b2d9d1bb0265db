/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses: compare, make from what stands in packets. */
#pragma once

#include "net.h"

/* The addresses a pod sees itself come from when its Service sends it to itself. Both are
 * never on a wire: link-local, and a prefix of our own out of fd00::/8.
 */
#define HAIRPIN_IPV4      bpf_htonl(0xa9fe2a01)                  /* 169.254.42.1 */
#define HAIRPIN_IPV6_HIGH bpf_cpu_to_be64(0xfd00706f64776972ULL) /* fd00:706f:6477:6972:: */
#define HAIRPIN_IPV6_LOW  bpf_cpu_to_be64(0x1ULL)

#define IPV4_MAPPED bpf_htonl(0x0000ffff)

static __always_inline void address_set_ipv4(union address *address, __be32 ipv4)
{
	address->halves[0] = 0;
	address->words[2] = IPV4_MAPPED;
	address->words[3] = ipv4;
}

static __always_inline void address_set_ipv6(union address *address, const struct in6_addr *ipv6)
{
	__builtin_memcpy(address, ipv6, sizeof(*address));
}

static __always_inline bool address_is_ipv4(const union address *address)
{
	return !address->halves[0] && address->words[2] == IPV4_MAPPED;
}

static __always_inline bool address_equal(const union address *a, const union address *b)
{
	return a->halves[0] == b->halves[0] && a->halves[1] == b->halves[1];
}

static __always_inline bool address_is_zero(const union address *address)
{
	return !(address->halves[0] | address->halves[1]);
}

static __always_inline void address_set_hairpin(union address *address, bool ipv6)
{
	if (!ipv6) {
		address_set_ipv4(address, HAIRPIN_IPV4);
		return;
	}
	address->halves[0] = HAIRPIN_IPV6_HIGH;
	address->halves[1] = HAIRPIN_IPV6_LOW;
}

static __always_inline bool address_is_hairpin(const union address *address)
{
	if (address_is_ipv4(address))
		return address->words[3] == HAIRPIN_IPV4;
	return address->halves[0] == HAIRPIN_IPV6_HIGH && address->halves[1] == HAIRPIN_IPV6_LOW;
}

/* To all on this link, and to nobody beyond: ff02::/16, 224.0.0.0/24. */
static __always_inline bool address_is_link_group(const union address *address)
{
	if (address_is_ipv4(address))
		return (address->words[3] & bpf_htonl(0xffffff00)) == bpf_htonl(0xe0000000);
	return (address->words[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xff020000);
}
