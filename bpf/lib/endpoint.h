/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Endpoints: the pods of this node, by address and by the device they send on. */
#pragma once

#include "address.h"
#include "abi/endpoint.h"

#define ENDPOINTS_MAX 4096

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, union address);
	__type(value, struct endpoint);
	__uint(max_entries, ENDPOINTS_MAX);
} podwire_endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct endpoint);
	__uint(max_entries, ENDPOINTS_MAX);
} podwire_devices SEC(".maps");

static __always_inline struct endpoint *endpoint_at(const union address *address)
{
	union address key = *address; /* Linux 6.1 takes no key from behind a pointer argument */

	return bpf_map_lookup_elem(&podwire_endpoints, &key);
}

static __always_inline struct endpoint *endpoint_on(__u32 device)
{
	return bpf_map_lookup_elem(&podwire_devices, &device);
}

static __always_inline bool endpoint_is_host(const struct endpoint *endpoint)
{
	return endpoint->flags & ENDPOINT_HOST;
}

/* An endpoint without an address of a family has zero there, which nobody may claim. */
static __always_inline bool endpoint_owns(const struct endpoint *endpoint,
					  const union address *address)
{
	if (address_is_zero(address))
		return false;
	return address_equal(address, &endpoint->ipv4) || address_equal(address, &endpoint->ipv6);
}
