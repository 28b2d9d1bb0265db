/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who is behind an address: exact addresses in a hash, prefixes in an LPM trie. */
#pragma once

#include "address.h"

struct prefix_key {
	__u32 prefix_length; /* bits of address, 0..128; IPv4 /n is 96 + n */
	union address address;
};

/* Prefixes of which nobody has an address that no other row names. */
enum ipcache_flags {
	IPCACHE_PODS = 1 << 0,     /* this node's pods: endpoints are all there are */
	IPCACHE_SERVICES = 1 << 1, /* Services: frontends are all there are */
};

struct ipcache_entry {
	__u32 identity;
	__u32 flags;          /* enum ipcache_flags */
	union address tunnel; /* the node to encapsulate to; zero = route natively */
	__u32 key;            /* encryption key index, 0 = none */
	__u32 pad;
};

#define IDENTITY_RESERVED_MAX 255 /* above it are pods' */
#define IDENTITY_CLUSTER_MAX                                                                       \
	0xffffff /* above it are those of one node alone: prefixes of the world */

/* Identities with a fixed number (Cilium's). */
enum reserved_identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_UNMANAGED = 3,
	IDENTITY_HEALTH = 4,
	IDENTITY_INIT = 5,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_KUBE_APISERVER = 7,
	IDENTITY_INGRESS = 8,
	IDENTITY_WORLD_IPV4 = 9,
	IDENTITY_WORLD_IPV6 = 10,
};
