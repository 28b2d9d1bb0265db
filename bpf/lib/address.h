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

/* fe80::/10 */
static __always_inline bool address_is_link_local(const union address *address)
{
	return (address->words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* The link-local address that goes with a hardware address (RFC 4291, appendix A). */
static __always_inline void address_set_link_local(union address *address, const __u8 *mac)
{
	address->words[0] = bpf_htonl(0xfe800000);
	address->words[1] = 0;
	address->bytes[8] = mac[0] ^ 2;
	address->bytes[9] = mac[1];
	address->bytes[10] = mac[2];
	address->bytes[11] = 0xff;
	address->bytes[12] = 0xfe;
	address->bytes[13] = mac[3];
	address->bytes[14] = mac[4];
	address->bytes[15] = mac[5];
}

/* Nobody's in particular: this host, loopback, groups, broadcast (RFC 6890), this link. The node's
 * stack would take them for its own, though policy was asked about the world.
 */
static __always_inline bool address_is_special(const union address *address)
{
	if (address_is_ipv4(address)) {
		__u8 first = address->bytes[12];

		return first == 0 || first == 127 || first >= 224;
	}
	return address->bytes[0] == 0xff || address_is_link_local(address) ||
	       (!address->halves[0] && bpf_be64_to_cpu(address->halves[1]) <= 1);
}

/* To all on this link, and to nobody beyond: ff02::/16, 224.0.0.0/24. */
static __always_inline bool address_is_link_group(const union address *address)
{
	if (address_is_ipv4(address))
		return (address->words[3] & bpf_htonl(0xffffff00)) == bpf_htonl(0xe0000000);
	return (address->words[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xff020000);
}
