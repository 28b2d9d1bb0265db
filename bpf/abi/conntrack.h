/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connections, seen from an endpoint: one entry per endpoint and connection, found
 * by one lookup for packets of both directions. A connection between two pods of
 * one node has two entries, one for each.
 */
#pragma once

#include "address.h"

enum ct_scope {
	CT_FLOW = 0, /* the only one yet */
};

/* Who sent the request of an ICMP echo; 0 = it is no echo. */
enum ct_asks {
	CT_LOCAL_ASKS = 1,
	CT_REMOTE_ASKS = 2,
};

/* ICMP echo: the identifier stands in the port of the side that asked; the other is 0. Of
 * other messages the sender has port 0xffff, the receiver type << 8 | code.
 */
struct ct_key {
	union address local;
	union address remote;
	__be16 local_port;
	__be16 remote_port;
	__u8 protocol;
	__u8 scope; /* enum ct_scope */
	__u8 asks;  /* enum ct_asks */
	__u8 pad;
};

enum ct_flags {
	CT_CLOSING_LOCAL = 1 << 0, /* FIN or RST seen from the local side */
	CT_CLOSING_REMOTE = 1 << 1,
	CT_SEEN_REPLY = 1 << 2,
	CT_NODE_ORIGIN = 1 << 3, /* opened by the node itself: never asked of policy */
	CT_MEMORY = 1 << 4,      /* no connection: struct ct_memory */
	CT_RESET = 1 << 5,       /* closed by an RST alone, which anybody may have sent */
	CT_LEAVES = 1 << 6,      /* the node: somebody is there, and it knows whom to give it to */
};

struct ct_entry {
	__u32 expires;       /* s, CLOCK_BOOTTIME */
	__u32 share;         /* who it is charged to, see ct_share */
	__u32 epoch;         /* of what decided, when it was asked: see node_state */
	__u32 rev_nat;       /* service whose address replies must show; 0 = none */
	__u8 direction;      /* enum direction: who opened it, seen from the endpoint */
	__u8 flags;          /* enum ct_flags */
	__u8 tcp_flags_sent; /* all seen so far */
	__u8 tcp_flags_received;
	__u16 reported; /* s, the low 16 bits: when an event was last emitted for it */
	__u16 proxy_port;
	__u32 identity;     /* of the remote side, when last asked */
	__u32 policy;       /* the policy that allowed it; a changed one is asked anew */
	__u32 rule;         /* the rule that allowed it */
	__u32 backend;      /* that a Service gave it */
	__u64 packets_sent; /* by the local side */
	__u64 bytes_sent;
	__u64 packets_received;
	__u64 bytes_received;
};

/* What a flow to a Service remembers, in the place of an entry (flag CT_MEMORY): the backend it
 * was given. As an entry up to `flags`; the epoch is node_state.service_epoch.
 */
struct ct_memory {
	__u32 expires;
	__u32 share;
	__u32 epoch;
	__u32 rev_nat;
	__u8 direction;
	__u8 flags;
	__be16 port;
	__u32 backend; /* its id */
	union address address;
	__u8 pad[32];
};

/* An endpoint has two shares of the table: of what it opens itself, and of what comes to it from
 * afar. So neither its own flood nor one from outside takes anything from others, nor from what it
 * does otherwise. Index 0 counts what was put into the overflow, 1 all that comes from afar.
 */
enum ct_share {
	CT_SHARE_OVERFLOW = 0,
	CT_SHARE_AFAR = 1,
	CT_SHARE_OUT = 0, /* endpoint id * 2 + this: opened by a pod of this node */
	CT_SHARE_IN = 1,  /* the same: from elsewhere to the endpoint */
};

#define EPOCH_ADDRESS_BITS  12
#define EPOCH_IDENTITY_BITS 12
#define EPOCH_POLICY_BITS   10
/* Knuth's: the high bits of the product are the place. */
#define EPOCH_MULTIPLIER 2654435761

/* One per node. What decided about a connection has an epoch, bumped when it changed: who has the
 * remote address, of which classes the remote identity is, what the policy says; beside them the
 * endpoint's own, a checksum of its row, and one for all. These here only grow, so the sum of all
 * is what it was while nothing changed. Several addresses share one by their hash; then connections
 * are asked about in vain.
 */
struct node_state {
	__u32 policy_epoch;     /* bumped when anything that was allowed may no longer be */
	__u32 service_epoch;    /* bumped when a backend may no longer be what a flow remembers */
	__u32 addresses[4096];  /* by the words of an address, xor */
	__u32 identities[4096]; /* by identity / 16 */
	__u32 policies[1024];   /* by the policy's number */
};

/* First fragments remember their ports for those that follow: in one of the places of a share, see
 * ct_share.
 */
struct fragment_key {
	__u32 share;
	__u32 place;
};

/* `asks`: enum ct_asks, seen from the sender. */
struct fragment {
	union address source;
	union address destination;
	__u32 id;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 asks;
	__u8 pad[6];
};
