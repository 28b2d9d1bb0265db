// SPDX-License-Identifier: Apache-2.0
/*
 * podwire-init: what a pod of the sandbox is made of. Static, so that it runs in any mount namespace.
 *
 *   podwire-init netns PATH                      a network namespace pinned at PATH, lo up
 *   podwire-init pod  [options]                  the pod's namespaces and its PID 1; prints its pid
 *   podwire-init run  [options] -- COMMAND...    one container: starts it, writes its log, waits
 *   podwire-init exec [options] -- COMMAND...    a command in a pod or on a node; exits as it does
 *
 * Options: --netns PATH (join, instead of making one: only for nodes and host-network pods),
 * --pin PATH (where `pod` pins the namespace it makes), --cgroup DIR, --hostname NAME, --pid PID
 * (whose namespaces to enter), --bind SOURCE:TARGET, --overlay LOWER:UPPER:WORK, --log FILE,
 * --exit FILE, --dir DIR, --tty.
 *
 * Errors are one line on standard error and exit code 125; a command that cannot be started gives
 * 127 (not found) or 126. Log lines are those of a container runtime: time, stream, F or P, text.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init_log.h"
#include "init_spaces.h"

#define BINDS_MAX 64
#define ALL_NAMESPACES (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID)

static struct {
	const char *netns, *pin, *cgroup, *hostname, *log, *exit, *dir;
	const char *binds[BINDS_MAX], *overlays[BINDS_MAX];
	int bind_count, overlay_count, pid, tty;
	char **command;
} opt;

static void bind_all(void)
{
	for (int i = 0; i < opt.bind_count; i++) {
		char source[4096], *target;

		snprintf(source, sizeof(source), "%s", opt.binds[i]);
		target = strchr(source, ':');
		if (!target)
			fail("--bind wants SOURCE:TARGET, got", opt.binds[i]);
		*target++ = 0;
		/* A host without /etc/hostname has nothing to hide. */
		if (mount(source, target, NULL, MS_BIND | MS_REC, NULL) && errno != ENOENT)
			fail("cannot mount over", target);
	}
}

static void close_standard_streams(void)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

/* PID 1 of a pod: reaps what is left to it, ends at SIGTERM, and all of the pod with it. */
static void be_pid_one(void)
{
	sigset_t set;
	int signal;

	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		fail("cannot mount", "/proc");
	if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL))
		fail("cannot mount", "/sys");
	bind_all();
	if (opt.hostname && sethostname(opt.hostname, strlen(opt.hostname)))
		fail("cannot set the host name", opt.hostname);
	prctl(PR_SET_NAME, "podwire-pause");
	setsid();
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	printf("ready\n");
	fflush(stdout);
	close_standard_streams();
	while (!sigwait(&set, &signal)) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (signal == SIGTERM)
			exit(0);
	}
}

static int pod(void)
{
	pid_t child;

	if (opt.cgroup)
		join_cgroup(opt.cgroup);
	if (opt.pin)
		make_netns(opt.pin);
	else if (opt.netns)
		join_netns(opt.netns);
	if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID))
		fail("cannot make namespaces", NULL);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("cannot make mounts private", NULL);
	forget_pinned_namespaces();
	hide_pinned_namespaces();
	child = fork();
	if (child < 0)
		fail("cannot start the pod's first process", NULL);
	if (!child)
		be_pid_one();
	printf("%d\n", child);
	return 0;
}

static void enter(void)
{
	int fd;

	if (opt.cgroup)
		join_cgroup(opt.cgroup);
	if (opt.netns)
		join_netns(opt.netns);
	if (!opt.pid)
		return;
	fd = syscall(SYS_pidfd_open, opt.pid, 0);
	if (fd < 0 || setns(fd, ALL_NAMESPACES))
		fail("cannot enter the pod's namespaces", NULL);
	close(fd);
}

/* In the child: becomes the command. */
static void become(void)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	if (opt.tty)
		ioctl(0, TIOCSCTTY, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (opt.bind_count) {
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
			fail("cannot make the container's mounts", NULL);
		for (int i = 0; i < opt.overlay_count; i++)
			mount_overlay(opt.overlays[i]);
		bind_all();
	}
	if (chdir(opt.dir ? opt.dir : "/"))
		fail("cannot enter the working directory", opt.dir);
	execvp(opt.command[0], opt.command);
	fprintf(stderr, "exec: \"%s\": %s\n", opt.command[0],
		errno == ENOENT ? "executable file not found in $PATH" : strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static pid_t exec_child;

static void pass_on(int signal)
{
	kill(exec_child, signal);
}

static int exec_in(void)
{
	int status;

	enter();
	exec_child = fork();
	if (exec_child < 0)
		fail("cannot start a process", NULL);
	if (!exec_child)
		become();
	signal(SIGTERM, pass_on);
	signal(SIGINT, pass_on);
	signal(SIGHUP, pass_on);
	while (waitpid(exec_child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(void)
{
	struct stream *streams = calloc(2, sizeof(*streams));
	int pipes[2][2], pidfd, status;
	pid_t child;

	log_fd = open(opt.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (log_fd < 0)
		fail("cannot write", opt.log);
	enter();
	if (pipe2(pipes[0], O_CLOEXEC) || pipe2(pipes[1], O_CLOEXEC))
		fail("cannot make pipes", NULL);
	child = fork();
	if (child < 0)
		fail("cannot start a process", NULL);
	if (!child) {
		/* With a terminal, whoever holds its other side keeps the log. */
		dup2(opt.tty ? 0 : pipes[0][1], 1);
		dup2(opt.tty ? 0 : pipes[1][1], 2);
		become();
	}
	printf("%d\n", child);
	fflush(stdout);
	close_standard_streams();
	signal(SIGTERM, SIG_IGN);
	for (int i = 0; i < 2; i++) {
		close(pipes[i][1]);
		fcntl(pipes[i][0], F_SETFL, O_NONBLOCK);
		streams[i].fd = pipes[i][0];
		streams[i].name = i ? "stderr" : "stdout";
	}
	pidfd = syscall(SYS_pidfd_open, child, 0);
	keep_log(streams, pidfd);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	write_exit(opt.exit, status);
	return 0;
}

static void parse(int count, char **arguments)
{
	for (int i = 2; i < count; i++) {
		const char *name = arguments[i], *value = arguments[i + 1];

		if (!strcmp(name, "--")) {
			opt.command = arguments + i + 1;
			return;
		} else if (!strcmp(name, "--tty")) {
			opt.tty = 1;
			continue;
		}
		errno = EINVAL;
		if (!value)
			fail("a value is missing after", name);
		i++;
		if (!strcmp(name, "--netns"))
			opt.netns = value;
		else if (!strcmp(name, "--pin"))
			opt.pin = value;
		else if (!strcmp(name, "--cgroup"))
			opt.cgroup = value;
		else if (!strcmp(name, "--hostname"))
			opt.hostname = value;
		else if (!strcmp(name, "--pid"))
			opt.pid = atoi(value);
		else if (!strcmp(name, "--log"))
			opt.log = value;
		else if (!strcmp(name, "--exit"))
			opt.exit = value;
		else if (!strcmp(name, "--dir"))
			opt.dir = value;
		else if (!strcmp(name, "--bind") && opt.bind_count < BINDS_MAX)
			opt.binds[opt.bind_count++] = value;
		else if (!strcmp(name, "--overlay") && opt.overlay_count < BINDS_MAX)
			opt.overlays[opt.overlay_count++] = value;
		else
			fail("unknown option", name);
	}
}

int main(int count, char **arguments)
{
	const char *verb = count > 1 ? arguments[1] : "";

	if (!strcmp(verb, "netns") && count == 3) {
		make_netns(arguments[2]);
		return 0;
	}
	parse(count, arguments);
	if (!strcmp(verb, "pod"))
		return pod();
	if (!strcmp(verb, "run") && opt.command && opt.command[0] && opt.log && opt.exit)
		return run();
	if (!strcmp(verb, "exec") && opt.command && opt.command[0])
		return exec_in();
	fprintf(stderr, "usage: podwire-init netns PATH | pod|run|exec [options] [-- COMMAND...]\n");
	return FAILED;
}
