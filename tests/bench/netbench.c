// SPDX-License-Identifier: Apache-2.0
/* netbench: the one client and server every peer of the benchmark is measured with.
 *
 * Blocking sockets, one connection at a time, both ends pinned to one core: two
 * processes on two idle cores would measure how long a core takes to wake up.
 * Every run is bounded (count or bytes, and an alarm), and dies with its parent.
 *
 *   netbench hold                              a network namespace that lives as long as this
 * process netbench serve ADDRESS PORT                answer all modes (TCP and UDP) until killed
 *   netbench MODE ADDRESS PORT COUNT           one line of JSON; MODE is one of
 *       rr       one byte there and back on an open connection
 *       connect  connect() alone; the connection is reset outside the measured time
 *       crr      connect, one byte there and back, server closes, client closes
 *       udp      one datagram there and back
 *       stream   COUNT mebibytes in one direction
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define COUNT_MAX      1000000
#define BLOCK          (128 * 1024)
#define WARM_UP        50
#define CLIENT_SECONDS 60

static _Thread_local char block[BLOCK];

struct target {
	struct sockaddr_storage address;
	socklen_t length;
};

static void die(const char *what)
{
	fprintf(stderr, "netbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static struct target target_of(const char *address, const char *port)
{
	struct target target = {};
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&target.address;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&target.address;

	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(atoi(port));
		target.length = sizeof(*v4);
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(atoi(port));
		target.length = sizeof(*v6);
	} else {
		fprintf(stderr, "netbench: %s is not an IP address\n", address);
		exit(2);
	}
	return target;
}

static int open_socket(const struct target *target, int type)
{
	struct timeval second = {.tv_sec = 1};
	int one = 1, fd;

	fd = socket(target->address.ss_family, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket");
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	else
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	return fd;
}

static int open_connection(const struct target *target, int type)
{
	int fd = open_socket(target, type);

	if (connect(fd, (const struct sockaddr *)&target->address, target->length) < 0)
		die("connect");
	return fd;
}

/* The server: the first byte of a message says what to do with it. */

static void serve_connection(int fd)
{
	int one = 1;
	ssize_t got;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while ((got = recv(fd, block, sizeof(block), 0)) > 0) {
		if (block[0] == 's')
			continue; /* stream: swallow, the end of it is the answer */
		if (send(fd, block, got, MSG_NOSIGNAL) < 0 || block[0] == 'c')
			break;
	}
	close(fd);
}

static void serve_tcp(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd >= 0)
			serve_connection(fd);
	}
}

static void *serve_udp(void *socket)
{
	int fd = *(int *)socket;

	for (;;) {
		struct target peer = {.length = sizeof(peer.address)};
		ssize_t got = recvfrom(fd, block, sizeof(block), 0,
				       (struct sockaddr *)&peer.address, &peer.length);

		if (got >= 0)
			sendto(fd, block, got, 0, (struct sockaddr *)&peer.address, peer.length);
	}
	return NULL;
}

static int open_listener(const struct target *target, int type)
{
	struct timeval never = {};
	int one = 1, fd;

	fd = open_socket(target, type);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never));
	if (bind(fd, (const struct sockaddr *)&target->address, target->length) < 0)
		die("bind");
	if (type == SOCK_STREAM && listen(fd, 4096) < 0)
		die("listen");
	return fd;
}

static int serve(const struct target *target)
{
	int tcp = open_listener(target, SOCK_STREAM);
	int udp = open_listener(target, SOCK_DGRAM);
	pthread_t thread;

	if (pthread_create(&thread, NULL, serve_udp, &udp))
		die("pthread_create");
	puts("ready");
	fflush(stdout);
	serve_tcp(tcp);
	return 0;
}

/* The client: each step returns how long it took, or 0 when the answer was lost. */

static uint64_t step_rr(int fd, char kind)
{
	char byte = kind;
	uint64_t start = now_ns();

	if (send(fd, &byte, 1, 0) != 1)
		die("send");
	if (recv(fd, &byte, 1, 0) != 1) {
		if (kind == 'u' && errno == EAGAIN)
			return 0;
		die("recv");
	}
	return now_ns() - start;
}

static uint64_t step_connect(const struct target *target)
{
	struct linger reset = {.l_onoff = 1};
	int fd = open_socket(target, SOCK_STREAM);
	uint64_t start = now_ns(), took;

	if (connect(fd, (const struct sockaddr *)&target->address, target->length) < 0)
		die("connect");
	took = now_ns() - start;
	/* A reset leaves no TIME_WAIT behind, which would make later ports slower to find. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	sched_yield();
	return took;
}

static uint64_t step_crr(const struct target *target)
{
	uint64_t start = now_ns(), took;
	int fd = open_connection(target, SOCK_STREAM);
	char byte = 'c';

	if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 0)
		die("connect-request-close");
	close(fd);
	took = now_ns() - start;
	return took;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int report(const char *mode, uint64_t *samples, long count, long lost)
{
	uint64_t total = 0;

	if (count == 0) {
		fprintf(stderr, "netbench: %s: no answer at all\n", mode);
		return 1;
	}
	qsort(samples, count, sizeof(*samples), compare);
	for (long i = 0; i < count; i++)
		total += samples[i];
	printf("{\"mode\": \"%s\", \"count\": %ld, \"lost\": %ld, \"p50_ns\": %lu, \"p99_ns\": "
	       "%lu, \"mean_ns\": %lu}\n",
	       mode, count, lost, samples[count / 2], samples[count - 1 - count / 100],
	       total / count);
	return 0;
}

static int measure(const char *mode, const struct target *target, long count)
{
	uint64_t *samples = calloc(count, sizeof(*samples));
	long done = 0, lost = 0;
	char kind = mode[0];
	int fd = -1;

	if (!samples)
		die("calloc");
	if (!strcmp(mode, "rr") || !strcmp(mode, "udp"))
		fd = open_connection(target, kind == 'u' ? SOCK_DGRAM : SOCK_STREAM);

	for (long i = -WARM_UP; i < count; i++) {
		uint64_t took = fd >= 0                ? step_rr(fd, kind)
				: !strcmp(mode, "crr") ? step_crr(target)
						       : step_connect(target);
		if (took == 0)
			lost++;
		else if (i >= 0)
			samples[done++] = took;
		if (lost > 10)
			break; /* each costs a second */
	}
	return report(mode, samples, done, lost);
}

static int stream(const struct target *target, long mebibytes)
{
	uint64_t left = (uint64_t)mebibytes << 20, start, took;
	int fd = open_connection(target, SOCK_STREAM);

	memset(block, 's', sizeof(block));
	start = now_ns();
	while (left > 0) {
		ssize_t sent = send(fd, block, left < BLOCK ? left : BLOCK, 0);

		if (sent < 0)
			die("send");
		left -= sent;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, block, sizeof(block), 0) != 0)
		die("end of stream");
	took = now_ns() - start;
	printf("{\"mode\": \"stream\", \"count\": %ld, \"lost\": 0, \"gbit_s\": %.3f}\n", mebibytes,
	       (double)((uint64_t)mebibytes << 20) * 8.0 / took);
	return 0;
}

static _Noreturn void hold(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		die("unshare");
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

static void pin_to_last_core(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("sched_setaffinity");
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	struct target target;
	long count;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(mode, "hold"))
		hold();
	if (argc < 4)
		goto usage;
	pin_to_last_core();
	target = target_of(argv[2], argv[3]);
	if (!strcmp(mode, "serve"))
		return serve(&target);

	count = argc == 5 ? atol(argv[4]) : 0;
	if (count < 1 || count > COUNT_MAX)
		goto usage;
	alarm(CLIENT_SECONDS);
	if (!strcmp(mode, "stream"))
		return stream(&target, count);
	if (!strcmp(mode, "rr") || !strcmp(mode, "connect") || !strcmp(mode, "crr") ||
	    !strcmp(mode, "udp"))
		return measure(mode, &target, count);
usage:
	fputs("usage: netbench hold | serve ADDRESS PORT | {rr,connect,crr,udp,stream} ADDRESS "
	      "PORT COUNT\n",
	      stderr);
	return 2;
}
