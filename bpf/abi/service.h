/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services: frontend -> a place of its backends -> backend. A few backends stand in the frontend
 * itself, exchanged by one write. More are a set of their own, which changes place by place: each
 * place is a backend before and after, and the count follows what is written and comes before what
 * is removed.
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

/* A backend, and all that a new connection to it needs: nothing else is looked up. */
struct slot {
	union address address;
	__be16 port;
	__u16 pad;
	__u32 backend; /* its id in podwire_backends */
};

#define FRONTEND_SLOTS 16

struct frontend {
	__u32 set;              /* in podwire_slots; 0 = the backends are here */
	__u32 count;            /* backends; 0 = drop or refuse */
	__u32 rev_nat;          /* the service's number in podwire_rev_nat */
	__u32 affinity_timeout; /* s */
	__u8 flags;             /* enum frontend_flags */
	__u8 pad[3];
	struct slot slots[FRONTEND_SLOTS];
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
