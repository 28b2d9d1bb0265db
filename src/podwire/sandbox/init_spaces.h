// SPDX-License-Identifier: Apache-2.0
/*
 * Cgroups and network namespaces by their paths: joined, made, forgotten. Whatever fails ends the
 * program with one line that says what.
 */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAILED 125

static void fail(const char *what, const char *which)
{
	fprintf(stderr, "%s%s%s: %s\n", what, which ? " " : "", which ? which : "", strerror(errno));
	exit(FAILED);
}

static void join_cgroup(const char *directory)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", directory);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		fail("cannot join cgroup", directory);
	close(fd);
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
		fail("cannot set lo up", NULL);
	close(fd);
}

/* A network namespace of its own for this process, pinned at `path` so that it outlives it. */
static void make_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);

	if (fd < 0)
		fail("cannot make network namespace", path);
	close(fd);
	if (unshare(CLONE_NEWNET) || mount("/proc/self/ns/net", path, NULL, MS_BIND, NULL))
		fail("cannot make network namespace", path);
	loopback_up();
}

static void join_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		fail("cannot enter network namespace", path);
	close(fd);
}

/* The copy of the mount table that a new mount namespace gets would keep alive every network
 * namespace pinned when the pod was made, long after its own pod is gone. Pinned maps and cgroups
 * are no business of a pod's either. */
static void forget_pinned_namespaces(void)
{
	char line[8192], path[4096];
	FILE *mounts = fopen("/proc/self/mountinfo", "re");

	if (!mounts)
		fail("cannot read /proc/self/mountinfo", NULL);
	while (fgets(line, sizeof(line), mounts))
		if ((strstr(line, " - nsfs ") || strstr(line, " - bpf ") || strstr(line, " - cgroup2 ")) &&
		    sscanf(line, "%*s %*s %*s %*s %4095s", path) == 1)
			umount2(path, MNT_DETACH);
	fclose(mounts);
}

/* What is left of them are empty files, of which ip(8) says that each is no namespace. */
static void hide_pinned_namespaces(void)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount("tmpfs", "/run/netns", "tmpfs", flags, "mode=755,size=64k") && errno != ENOENT)
		fail("cannot cover", "/run/netns");
}

/* Where a mount point is missing, its parent is covered by a copy that has one: `what` is
 * LOWER:UPPER:WORK, and LOWER shows UPPER over itself from now on, in this mount namespace. */
static void mount_overlay(const char *what)
{
	char lower[2048], upper[2048], work[2048], options[8192];

	errno = EINVAL;
	if (sscanf(what, "%2047[^:]:%2047[^:]:%2047[^:]", lower, upper, work) != 3)
		fail("--overlay wants LOWER:UPPER:WORK, got", what);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
	if (mount("overlay", lower, "overlay", 0, options))
		fail("cannot add mount points to", lower);
}
