/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sockets: a Service's address is exchanged for a backend's before there is a packet, and
 * back where the socket looks at its peer. What a connected socket asked stands in a table, until
 * it is closed: to make room in memory for each would cost as much as all the rest. What others ask
 * by turns, and what finds the table full, is kept with the socket itself: it goes with it, and
 * nobody's many sockets push out what another's remember.
 *
 * A v4-mapped address on an IPv6 socket has the shape that IPv4 has in every map, so it
 * needs nothing of its own.
 */
#pragma once

#include <bpf/bpf_core_read.h>

#include "event.h"
#include "metrics.h"
#include "service.h"

#define SOCKETS_MAX     32768
#define SOCKET_SERVICES 4 /* Services that one socket may ask by turns; a power of 2 */
#define SOCKET_GO_ON    1
#define SOCKET_REFUSE   0

/* A Service that the socket asked, and the backend it was given. */
struct socket_service {
	union address asked;
	union address given;
	__be16 asked_port;
	__be16 given_port;
	__u32 backend;
};

struct socket_services {
	struct socket_service rows[SOCKET_SERVICES];
	__u32 count; /* ever written; the next goes to the place of the oldest */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* the socket's cookie */
	__type(value, struct socket_service);
	__uint(max_entries, SOCKETS_MAX);
} podwire_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct socket_services);
} podwire_socket_services SEC(".maps");

/* What a socket wants to reach, or has heard from. */
struct peer {
	union address address;
	__u64 cookie; /* the socket's, once it is needed */
	__be16 port;
	__u8 protocol;
};

static __always_inline void peer_read4(struct peer *peer, struct bpf_sock_addr *ctx)
{
	address_set_ipv4(&peer->address, ctx->user_ip4);
	peer->port = ctx->user_port;
	peer->protocol = ctx->protocol;
}

static __always_inline void peer_read6(struct peer *peer, struct bpf_sock_addr *ctx)
{
	peer->address.words[0] = ctx->user_ip6[0];
	peer->address.words[1] = ctx->user_ip6[1];
	peer->address.words[2] = ctx->user_ip6[2];
	peer->address.words[3] = ctx->user_ip6[3];
	peer->port = ctx->user_port;
	peer->protocol = ctx->protocol;
}

static __always_inline void peer_write4(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip4 = peer->address.words[3];
	ctx->user_port = peer->port;
}

static __always_inline void peer_write6(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip6[0] = peer->address.words[0];
	ctx->user_ip6[1] = peer->address.words[1];
	ctx->user_ip6[2] = peer->address.words[2];
	ctx->user_ip6[3] = peer->address.words[3];
	ctx->user_port = peer->port;
}

/* `asked` is the Service, `given` the backend (of a refusal: the Service again). Whose address
 * that is the reader of events knows; a caller of connect need not wait for it.
 */
static __always_inline void socket_tell(struct bpf_sock_addr *ctx, const struct peer *asked,
					const struct peer *given, __u8 kind, __u8 reason)
{
	__u64 cgroup = bpf_get_current_cgroup_id();
	struct event *event = event_reserve(kind, EVENT_SHARES_SOCKETS + (cgroup & EVENT_CGROUPS));

	if (!event)
		return;
	event->destination = given->address;
	event->destination_port = bpf_ntohs(given->port);
	event->original = asked->address;
	event->original_port = bpf_ntohs(asked->port);
	event->protocol = asked->protocol;
	event->direction = DIRECTION_EGRESS;
	event->cookie = asked->cookie;
	event->cgroup = cgroup;
	event->point = kind == EVENT_SOCKET ? SOCKET_POST_FORWARD : 0;
	event->reason = reason;
	event->flags = address_is_ipv4(&given->address) ? 0 : EVENT_IPV6;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline int socket_refuse(struct bpf_sock_addr *ctx, const struct peer *asked)
{
	metrics_count(DROP_NO_BACKEND, DIRECTION_EGRESS, 0);
	socket_tell(ctx, asked, asked, EVENT_DROP, DROP_NO_BACKEND);
	kernel_set_errno(ERR_HOSTUNREACH);
	return SOCKET_REFUSE;
}

/* The row `back` places before the newest. */
static __always_inline struct socket_service *socket_row(struct socket_services *services,
							 __u32 back)
{
	return &services->rows[(services->count - 1 - back) & (SOCKET_SERVICES - 1)];
}

static __always_inline struct socket_service *socket_asked(struct socket_services *services,
							   const struct peer *peer)
{
	for (int back = 0; services && back < SOCKET_SERVICES; back++) {
		struct socket_service *row = socket_row(services, back);

		if (row->asked_port == peer->port && address_equal(&row->asked, &peer->address))
			return row;
	}
	return NULL;
}

/* The backend that the socket was given before, while it is there: datagrams of one socket to one
 * Service reach one backend, as over any NAT.
 */
static __always_inline bool socket_recall(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct socket_service *row =
		socket_asked(bpf_sk_storage_get(&podwire_socket_services, ctx->sk, NULL, 0), peer);
	struct backend *backend = row ? backend_find(row->backend) : NULL;

	if (!backend || backend_is_terminating(backend))
		return false;
	/* A number that was freed may be another backend's by now. */
	if (backend->port != row->given_port || !address_equal(&backend->address, &row->given))
		return false;
	peer->address = row->given;
	peer->port = row->given_port;
	return true;
}

static __always_inline void socket_fill(struct socket_service *row, const struct peer *asked,
					const struct slot *given)
{
	row->asked = asked->address;
	row->asked_port = asked->port;
	row->given = given->address;
	row->given_port = given->port;
	row->backend = given->backend;
}

static __always_inline void socket_remember(struct bpf_sock_addr *ctx, const struct peer *asked,
					    const struct slot *given)
{
	struct socket_services *services = bpf_sk_storage_get(&podwire_socket_services, ctx->sk,
							      NULL, BPF_SK_STORAGE_GET_F_CREATE);
	struct socket_service *row;

	if (!services)
		return; /* without memory its peer shows the backend */
	row = socket_asked(services, asked);
	if (!row) {
		services->count++;
		row = socket_row(services, 0);
	}
	socket_fill(row, asked, given);
}

/* Does the kernel say when it is closed? Of a socket of its own it does not: MPTCP connects by
 * those. */
static __always_inline bool socket_is_users(struct bpf_sock_addr *ctx)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(ctx->sk);

	return !tcp || !BPF_CORE_READ_BITFIELD(&tcp->inet_conn.icsk_inet.sk, sk_kern_sock);
}

/* False: the table is full, or the row would stay in it for ever. */
static __always_inline bool socket_note(struct bpf_sock_addr *ctx, const struct peer *asked,
					const struct slot *given)
{
	struct socket_service row;

	socket_fill(&row, asked, given);
	return socket_is_users(ctx) &&
	       !bpf_map_update_elem(&podwire_sockets, &asked->cookie, &row, BPF_ANY);
}

/* A client is a pod, and a pod is a network namespace. */
static __always_inline __u32 socket_number(struct bpf_sock_addr *ctx,
					   const struct frontend *frontend)
{
	return frontend_has_affinity(frontend) ? backend_number_of(bpf_get_netns_cookie(ctx))
					       : bpf_get_prandom_u32();
}

/* From a Service to one of its backends. 1 if `peer` changed, 0 if it is no Service, -1 if
 * nobody serves it.
 */
static __always_inline int socket_forward(struct bpf_sock_addr *ctx, struct peer *peer, bool sticky)
{
	struct frontend *frontend = frontend_find(&peer->address, peer->port, peer->protocol);
	struct peer asked;
	struct slot *slot;

	if (!frontend)
		return 0;
	if (sticky && socket_recall(ctx, peer))
		return 1;
	peer->cookie = bpf_get_socket_cookie(ctx);
	asked = *peer;
	slot = slot_choose(frontend, socket_number(ctx, frontend));
	/* A backend of the other family than the Service cannot be reached by this socket. */
	if (!slot || address_is_ipv4(&slot->address) != address_is_ipv4(&peer->address))
		return -1;
	peer->address = slot->address;
	peer->port = slot->port;
	if (sticky || !socket_note(ctx, &asked, slot))
		socket_remember(ctx, &asked, slot);
	if (config_socket_events)
		socket_tell(ctx, &asked, peer, EVENT_SOCKET, 0);
	return 1;
}

static __always_inline bool socket_is_of(const struct socket_service *row, const struct peer *peer)
{
	return row->given_port == peer->port && address_equal(&row->given, &peer->address);
}

static __always_inline bool socket_show(struct peer *peer, const struct socket_service *row)
{
	peer->address = row->asked;
	peer->port = row->asked_port;
	return true;
}

/* From a backend to the Service this very socket had asked; false if it had asked none. */
static __always_inline bool socket_reverse(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct socket_services *services =
		bpf_sk_storage_get(&podwire_socket_services, ctx->sk, NULL, 0);
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct socket_service *connected;

	/* What it is connected to it asked last. */
	connected = bpf_map_lookup_elem(&podwire_sockets, &cookie);
	if (connected && socket_is_of(connected, peer))
		return socket_show(peer, connected);
	for (int back = 0; services && back < SOCKET_SERVICES; back++) {
		struct socket_service *row = socket_row(services, back);

		if (socket_is_of(row, peer))
			return socket_show(peer, row);
	}
	return false;
}

static __always_inline void socket_forget(struct bpf_sock *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);

	bpf_map_delete_elem(&podwire_sockets, &cookie);
}
