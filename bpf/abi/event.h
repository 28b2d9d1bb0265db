/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One fixed-size record per thing that happened; read by hubble.read as an array.
 *
 * emitted = stored + lost holds per CPU: `sequence` counts every attempt on its CPU,
 * also those that found the ring full (see struct event_stats).
 */
#pragma once

#include "address.h"

/* Hubble's message types, so that `hubble observe --type` means the same. */
enum event_kind {
	EVENT_DROP = 1,
	EVENT_TRACE = 4,
	EVENT_VERDICT = 5,
	EVENT_SOCKET = 7,
};

/* `point` of an EVENT_TRACE: where the packet was seen (Hubble's observation points, 0 is
 * to-endpoint). */
enum trace_point {
	TRACE_TO_ENDPOINT = 0,
	TRACE_TO_PROXY = 1,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_ENDPOINT = 5,
	TRACE_FROM_PROXY = 6,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_STACK = 8,
	TRACE_FROM_OVERLAY = 9,
	TRACE_FROM_NETWORK = 10,
	TRACE_TO_NETWORK = 11,
};

/* `reason` of an EVENT_TRACE: what conntrack knew. */
enum trace_reason {
	TRACE_REASON_UNKNOWN = 0,
	TRACE_REASON_NEW = 1,
	TRACE_REASON_ESTABLISHED = 2,
	TRACE_REASON_REPLY = 3,
	TRACE_REASON_RELATED = 4,
	TRACE_REASON_REOPENED = 5,
};

/* `point` of an EVENT_SOCKET. */
enum socket_point {
	SOCKET_PRE_FORWARD = 1,
	SOCKET_POST_FORWARD = 2,
	SOCKET_PRE_REVERSE = 3,
	SOCKET_POST_REVERSE = 4,
};

enum direction {
	DIRECTION_UNKNOWN = 0,
	DIRECTION_INGRESS = 1,
	DIRECTION_EGRESS = 2,
};

enum event_flags {
	EVENT_IPV6 = 1 << 0,
	EVENT_REPLY_KNOWN = 1 << 1,
	EVENT_REPLY = 1 << 2,
	EVENT_ENCRYPTED = 1 << 3,
	EVENT_FRAGMENT = 1 << 4,  /* not the first fragment: ports came from the first one */
	EVENT_TRUNCATED = 1 << 5, /* the packet ended before its headers did */
};

struct event {
	__u64 time;     /* ns, CLOCK_BOOTTIME */
	__u64 sequence; /* of this CPU, from 1 */
	union address source;
	union address destination;
	union address original; /* destination before service translation (or source, on replies);
				   else zero */
	__u64 cookie;           /* socket cookie, EVENT_SOCKET only */
	__u64 cgroup;           /* cgroup id, EVENT_SOCKET only */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 rule;        /* the rule that decided, state table `rules`; 0 = no rule was asked */
	__u32 policy;      /* the policy that was asked; 0 = none */
	__u32 length;      /* bytes of the packet, L2 included */
	__u32 device;      /* ifindex */
	__u16 source_port; /* host byte order, like all ports here */
	__u16 destination_port;
	__u16 original_port;
	__u16 proxy_port;
	__u16 source_endpoint; /* local endpoint ids, 0 = not on this node or unknown */
	__u16 destination_endpoint;
	__u16 cpu;
	__u16 error; /* errno of the kernel call that failed, drops only */
	__u8 kind;   /* enum event_kind */
	__u8 point;  /* trace_point, socket_point; for EVENT_VERDICT 1 = forwarded, 2 = dropped */
	__u8 reason; /* drop_reason, trace_reason */
	__u8 direction; /* enum direction, seen from the endpoint whose policy was asked */
	__u8 protocol;  /* IPPROTO_* */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 match; /* enum policy_match, EVENT_VERDICT only */
	__u8 flags; /* enum event_flags */
	__u8 source_mac[6];
	__u8 destination_mac[6];
	__u8 pad[2];
};

/* Per CPU. sequence of the next event = emitted + 1; stored in the ring = emitted - lost. */
struct event_stats {
	__u64 emitted;
	__u64 lost;
	__u64 withheld; /* of those lost: beyond a share while the ring was filling */
};

/* What one side of an endpoint has had of the ring, see enum ct_share; behind those of all
 * endpoints stand those of sockets, by the low bits of their cgroup's id. Begins as struct limit.
 */
struct event_share {
	__u32 second;   /* CLOCK_BOOTTIME, s */
	__u32 taken;    /* records in it */
	__u64 withheld; /* ever */
};

#define EVENT_SHARES_SOCKETS 131072
