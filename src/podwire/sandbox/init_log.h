// SPDX-License-Identifier: Apache-2.0
/*
 * A container's output as lines of a container runtime's log (time, stream, F or P, text), and its
 * exit code in a file of its own, so that both are there whoever else dies.
 */
#pragma once
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 16384
#define LOG_MAX_BYTES (64 << 20)

/* One stream of a container, cut into lines. */
struct stream {
	const char *name;
	int fd, length;
	char text[LINE_MAX_BYTES];
};

static int log_fd = -1;

static void write_line(struct stream *stream, int length, char mark)
{
	static char line[LINE_MAX_BYTES + 96];
	struct timespec now;
	struct tm when;
	int used;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &when);
	used = strftime(line, 32, "%Y-%m-%dT%H:%M:%S", &when);
	used += sprintf(line + used, ".%09ldZ %s %c ", now.tv_nsec, stream->name, mark);
	memcpy(line + used, stream->text, length);
	line[used + length] = '\n';
	/* A full disk loses log lines, not the container. */
	if (lseek(log_fd, 0, SEEK_END) < LOG_MAX_BYTES && write(log_fd, line, used + length + 1) < 0)
		return;
}

/* Bytes that are there become lines; false at the end of the stream. */
static int drain(struct stream *stream)
{
	int got = read(stream->fd, stream->text + stream->length, LINE_MAX_BYTES - stream->length);
	char *end;

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	stream->length += got;
	while ((end = memchr(stream->text, '\n', stream->length))) {
		int length = end - stream->text;

		write_line(stream, length, 'F');
		stream->length -= length + 1;
		memmove(stream->text, end + 1, stream->length);
	}
	if (stream->length == LINE_MAX_BYTES || (!got && stream->length)) {
		write_line(stream, stream->length, 'P');
		stream->length = 0;
	}
	return got > 0;
}

/* Both streams into the log until the container's process has ended; what it left is read, too. */
static void keep_log(struct stream streams[2], int pidfd)
{
	struct pollfd waits[3] = { { pidfd, POLLIN, 0 }, { streams[0].fd, POLLIN, 0 }, { streams[1].fd, POLLIN, 0 } };

	while (poll(waits, 3, -1) >= 0 || errno == EINTR) {
		for (int i = 0; i < 2; i++)
			if (waits[i + 1].revents && !drain(&streams[i]))
				waits[i + 1].fd = -1;
		if (waits[0].revents && !waits[1].revents && !waits[2].revents)
			break;
		for (int i = 0; i < 3; i++)
			if (waits[i].fd < 0)
				waits[i].revents = 0;
	}
}

static void write_exit(const char *path, int status)
{
	char temporary[4096];
	struct timespec now;
	FILE *file;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	file = fopen(temporary, "we");
	if (!file)
		return;
	fprintf(file, "%d %d %ld.%09ld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
		WIFSIGNALED(status) ? WTERMSIG(status) : 0, (long)now.tv_sec, now.tv_nsec);
	if (!fclose(file))
		rename(temporary, path);
}
