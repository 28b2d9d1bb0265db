/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ipcache: who is behind an address, and behind which node. */
#pragma once

#include "endpoint.h"
#include "flow.h"
#include "abi/ipcache.h"

#define IPCACHE_MAX          65536
#define IPCACHE_PREFIXES_MAX 65536
#define ADDRESS_BITS         128

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, union address);
	__type(value, struct ipcache_entry);
	__uint(max_entries, IPCACHE_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_ipcache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct prefix_key);
	__type(value, struct ipcache_entry);
	__uint(max_entries, IPCACHE_PREFIXES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_ipcache_prefixes SEC(".maps");

/* A row of this very address. */
static __always_inline struct ipcache_entry *ipcache_exact(const union address *address)
{
	union address key = *address;

	return bpf_map_lookup_elem(&podwire_ipcache, &key);
}

static __always_inline struct ipcache_entry *ipcache_prefix(const union address *address)
{
	struct prefix_key key = {.prefix_length = ADDRESS_BITS, .address = *address};

	return bpf_map_lookup_elem(&podwire_ipcache_prefixes, &key);
}

static __always_inline struct ipcache_entry *ipcache_find(const union address *address)
{
	struct ipcache_entry *entry = ipcache_exact(address);

	return entry ? entry : ipcache_prefix(address);
}

/* Is it known that this kind of address would have been found elsewhere, if anybody had it? */
static __always_inline bool ipcache_is_nobody(const struct ipcache_entry *entry, __u32 kinds)
{
	return entry && entry->flags & kinds;
}

/* Whoever no row names is the world. */
static __always_inline __u32 ipcache_identity(const union address *address)
{
	struct ipcache_entry *entry = ipcache_find(address);

	return entry ? entry->identity : IDENTITY_WORLD;
}

/* A pod of this node is known by its endpoint before the ipcache hears of it. */
__function __u32 identity_of(const union address *address)
{
	struct endpoint *endpoint = address ? endpoint_at(address) : NULL;

	if (!address)
		return IDENTITY_UNKNOWN;
	return endpoint ? endpoint->identity : ipcache_identity(address);
}

/* Both sides' identities, where the walk has not needed them so far. */
static __always_inline void flow_identify(struct flow *flow)
{
	if (!flow->source_identity)
		flow->source_identity = identity_of(&flow->source);
	if (!flow->destination_identity)
		flow->destination_identity = identity_of(&flow->destination);
}

static __always_inline bool address_is_node(const union address *address)
{
	const volatile union address *ipv4 = &config_node_ipv4, *ipv6 = &config_node_ipv6;

	return (address->halves[0] == ipv4->halves[0] && address->halves[1] == ipv4->halves[1]) ||
	       (address->halves[0] == ipv6->halves[0] && address->halves[1] == ipv6->halves[1]);
}

/* Pods, nodes and what else belongs to the cluster; not the world, nor a prefix of it. */
static __always_inline bool identity_is_of_cluster(__u32 identity)
{
	return identity <= IDENTITY_CLUSTER_MAX && identity != IDENTITY_WORLD &&
	       identity != IDENTITY_WORLD_IPV4 && identity != IDENTITY_WORLD_IPV6;
}

/* Who sent what the node's stack received on `device` and forwards. An address proves nothing by
 * itself: a pod of another node is behind the tunnel and comes from nowhere else, no pod comes from
 * a device that is not the cluster's, and the node itself from none. Another node or the API server
 * may well come by another network: it may answer what was asked of it, but call only as
 * anybody of the world. 0 or the reason to drop.
 */
static __always_inline int identify_received(struct flow *flow, __u32 device)
{
	struct ipcache_entry *there = ipcache_find(&flow->source);

	flow->source_identity = there ? there->identity : IDENTITY_WORLD;
	if (flow->source_identity == IDENTITY_HOST)
		return DROP_INVALID_SOURCE_IP;
	if (config_tunnel_device && there && !address_is_zero(&there->tunnel))
		return DROP_INVALID_SOURCE_IP;
	if (!config_network_device || device == config_network_device ||
	    !identity_is_of_cluster(flow->source_identity))
		return 0;
	if (flow->source_identity > IDENTITY_RESERVED_MAX)
		return DROP_INVALID_SOURCE_IP;
	flow->flags |= FLOW_ELSEWHERE;
	return 0;
}

/* This node's, a pod's of it, or what a pod sees itself come from: never from outside. */
static __always_inline bool address_is_ours(const union address *address)
{
	return endpoint_at(address) || address_is_node(address) || address_is_hairpin(address);
}
