/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sockets: a Service's address is exchanged for a backend's before there is a packet, and
 * back where the socket looks at its peer. Memory is per socket, by cookie.
 *
 * A v4-mapped address on an IPv6 socket has the shape that IPv4 has in every map, so it
 * needs nothing of its own.
 */
#pragma once

#include "event.h"
#include "metrics.h"
#include "service.h"

#define SOCKET_ORIGINS_MAX 65536
#define SOCKET_GO_ON       1
#define SOCKET_REFUSE      0

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct socket_key);
	__type(value, struct socket_origin);
	__uint(max_entries, SOCKET_ORIGINS_MAX);
} podwire_socket_origins SEC(".maps");

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

static __always_inline void socket_key_of(struct socket_key *key, const struct peer *peer,
					  enum socket_scope scope)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cookie = peer->cookie;
	key->address = peer->address;
	key->port = peer->port;
	key->protocol = peer->protocol;
	key->scope = scope;
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

/* The backend an unconnected socket was given for this frontend, while it is there. */
static __always_inline struct backend *socket_recall(const struct peer *peer, __u32 *id)
{
	struct socket_origin *given;
	struct backend *backend;
	struct socket_key key;

	socket_key_of(&key, peer, SOCKET_FRONTEND);
	given = bpf_map_lookup_elem(&podwire_socket_origins, &key);
	backend = given ? backend_find(given->backend) : NULL;
	if (!backend || backend_is_terminating(backend))
		return NULL;
	*id = given->backend;
	return backend;
}

/* For this socket: what it asked for, by what it was given, or the other way round. */
static __always_inline void socket_remember(enum socket_scope scope, const struct peer *by,
					    const struct peer *value, __u32 backend)
{
	struct socket_origin origin = {
		.address = value->address,
		.port = value->port,
		.backend = backend,
	};
	struct socket_key key;

	socket_key_of(&key, by, scope);
	bpf_map_update_elem(&podwire_socket_origins, &key, &origin, BPF_ANY);
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
	struct backend *backend = NULL;
	bool fresh = false;
	struct peer asked;
	__u32 id = 0;

	if (!frontend)
		return 0;
	peer->cookie = bpf_get_socket_cookie(ctx);
	asked = *peer;
	if (sticky)
		backend = socket_recall(peer, &id);
	if (!backend) {
		backend = backend_choose(frontend, socket_number(ctx, frontend), &id);
		fresh = true;
	}
	/* A backend of the other family than the Service cannot be reached by this socket. */
	if (!backend || address_is_ipv4(&backend->address) != address_is_ipv4(&peer->address))
		return -1;
	peer->address = backend->address;
	peer->port = backend->port;
	if (!fresh)
		return 1;
	socket_remember(SOCKET_BACKEND, peer, &asked, id);
	/* Datagrams of one socket to one Service reach one backend, as over any NAT. */
	if (sticky)
		socket_remember(SOCKET_FRONTEND, &asked, peer, id);
	if (config_socket_events)
		socket_tell(ctx, &asked, peer, EVENT_SOCKET, 0);
	return 1;
}

/* From a backend to the Service this very socket had asked; false if it had asked none. */
static __always_inline bool socket_reverse(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct socket_origin *origin;
	struct socket_key key;

	peer->cookie = bpf_get_socket_cookie(ctx);
	socket_key_of(&key, peer, SOCKET_BACKEND);
	origin = bpf_map_lookup_elem(&podwire_socket_origins, &key);
	if (!origin)
		return false;
	peer->address = origin->address;
	peer->port = origin->port;
	return true;
}
