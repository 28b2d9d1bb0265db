/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A pod of this node. One value, in two maps: by address (to deliver to it) and by
 * the ifindex of its host-side veth (to know who sends). Attaching a pod is these
 * rows and two links; no program is loaded for it.
 */
#pragma once

#include "address.h"

enum endpoint_flags {
	ENDPOINT_ENFORCE_INGRESS = 1 << 0,
	ENDPOINT_ENFORCE_EGRESS = 1 << 1,
	ENDPOINT_NOT_READY = 1 << 2, /* identity or policy not known yet: nothing passes */
	ENDPOINT_HOST = 1 << 3,      /* an address of the node itself: goes to its stack */
	/* Not all that policy needs is in the maps (one is full). What they do not say of a peer is
	 * then no answer: it is denied, or an address would count as the world, a pod as any other.
	 */
	ENDPOINT_PEERS_MISSING = 1 << 4,     /* identities of its policy's peers */
	ENDPOINT_ADDRESSES_MISSING = 1 << 5, /* addresses or prefixes, and who is behind them */
	ENDPOINT_DOWN = 1 << 6, /* its device has lost its carrier: nothing gets there */
};

struct endpoint {
	__u32 device; /* ifindex of the host-side veth */
	__u32 identity;
	__u32 policy;
	__u16 id;
	__u16 flags;
	__u8 mac[6];        /* of the pod's own interface */
	__u8 host_mac[6];   /* of the host-side veth */
	__u32 epoch;        /* another one when its connections must be asked about again */
	union address ipv4; /* zero = has none */
	union address ipv6;
};
