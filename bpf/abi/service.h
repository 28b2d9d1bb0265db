/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services: frontend -> backend set -> backend. A changed set of backends is written
 * whole under a new set number; one write to the frontend switches to it.
 */
#pragma once

#include "address.h"

enum frontend_flags {
	FRONTEND_NODEPORT = 1 << 0,
	FRONTEND_AFFINITY = 1 << 1,
};

enum backend_flags {
	BACKEND_TERMINATING = 1 << 0, /* keeps its connections, gets no new ones */
	BACKEND_LOCAL = 1 << 1,       /* on this node */
};

struct frontend_key {
	union address address;
	__be16 port;
	__u8 protocol;
	__u8 scope; /* 0; 1 = node-local backends only */
};

struct frontend {
	__u32 set;
	__u32 count;            /* backends in the set; 0 = drop or refuse */
	__u32 rev_nat;          /* the service's number in podwire_rev_nat */
	__u32 affinity_timeout; /* s */
	__u8 flags;             /* enum frontend_flags */
	__u8 pad[3];
};

struct slot_key {
	__u32 set;
	__u32 slot; /* 0 .. count - 1 */
};

struct backend {
	union address address;
	__be16 port;
	__u8 protocol;
	__u8 flags; /* enum backend_flags */
};

struct rev_nat {
	union address address;
	__be16 port;
	__u16 pad;
};
