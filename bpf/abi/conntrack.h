/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connections, seen from an endpoint: one entry per endpoint and connection, found
 * by one lookup for packets of both directions. A connection between two pods of
 * one node has two entries, one for each.
 */
#pragma once

#include "address.h"

enum ct_scope {
	CT_FLOW = 0,
	CT_SERVICE = 1, /* client to frontend: remembers the backend it was given */
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
};

struct ct_entry {
	__u64 packets_sent; /* by the local side */
	__u64 bytes_sent;
	__u64 packets_received;
	__u64 bytes_received;
	__u32 expires;  /* s, CLOCK_BOOTTIME */
	__u32 reported; /* s: when an event was last emitted for it */
	__u32 identity; /* of the remote side, when last asked */
	__u32 policy;   /* the policy that allowed it; a changed one is asked anew */
	__u32 epoch;    /* node_state.policy_epoch when it was asked */
	__u32 rule;     /* the rule that allowed it */
	__u32 backend;  /* CT_SERVICE: the backend given */
	__u16 rev_nat;  /* service whose address replies must show; 0 = none */
	__u16 proxy_port;
	__u8 direction;      /* enum direction: who opened it, seen from the endpoint */
	__u8 flags;          /* enum ct_flags */
	__u8 tcp_flags_sent; /* all seen so far */
	__u8 tcp_flags_received;
	__u32 pad;
};

/* One per node. */
struct node_state {
	__u32 policy_epoch;  /* bumped when something that was allowed may no longer be */
	__u32 service_epoch; /* bumped when a backend may no longer be what a flow remembers */
};

/* First fragments remember their ports for those that follow. */
struct fragment_key {
	union address source;
	union address destination;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment_ports {
	__be16 source_port;
	__be16 destination_port;
	__u8 asks; /* enum ct_asks, seen from the sender */
	__u8 pad[3];
};
