/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* On the cgroup of all pods: Services at the socket. connect and sendmsg are given a
 * backend, recvmsg and getpeername show the Service again, until the socket is closed. Packets then
 * need nothing.
 */
#include "lib/socket.h"

static __always_inline int forward4(struct bpf_sock_addr *ctx, bool sticky)
{
	struct peer peer;
	int changed;

	peer_read4(&peer, ctx);
	changed = socket_forward(ctx, &peer, sticky);
	if (changed < 0)
		return socket_refuse(ctx, &peer);
	if (changed)
		peer_write4(ctx, &peer);
	return SOCKET_GO_ON;
}

static __always_inline int forward6(struct bpf_sock_addr *ctx, bool sticky)
{
	struct peer peer;
	int changed;

	peer_read6(&peer, ctx);
	changed = socket_forward(ctx, &peer, sticky);
	if (changed < 0)
		return socket_refuse(ctx, &peer);
	if (changed)
		peer_write6(ctx, &peer);
	return SOCKET_GO_ON;
}

static __always_inline int reverse4(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	peer_read4(&peer, ctx);
	if (socket_reverse(ctx, &peer))
		peer_write4(ctx, &peer);
	return SOCKET_GO_ON;
}

static __always_inline int reverse6(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	peer_read6(&peer, ctx);
	if (socket_reverse(ctx, &peer))
		peer_write6(ctx, &peer);
	return SOCKET_GO_ON;
}

SEC("cgroup/connect4")
int podwire_connect4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, false);
}

SEC("cgroup/connect6")
int podwire_connect6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, false);
}

SEC("cgroup/sendmsg4")
int podwire_sendmsg4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, true);
}

SEC("cgroup/sendmsg6")
int podwire_sendmsg6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, true);
}

SEC("cgroup/recvmsg4")
int podwire_recvmsg4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/recvmsg6")
int podwire_recvmsg6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}

SEC("cgroup/getpeername4")
int podwire_getpeername4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/getpeername6")
int podwire_getpeername6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}

SEC("cgroup/sock_release")
int podwire_sock_release(struct bpf_sock *ctx)
{
	socket_forget(ctx);
	return SOCKET_GO_ON;
}

char _license[] SEC("license") = "Dual BSD/GPL";
