/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For Linux 6.1 and later. The same sources are compiled once with this header in front and once
 * with legacy.h, which has the same names; the loader asks the kernel and takes the fitting object.
 *
 * Functions marked __function are global: the verifier takes each by itself, once, for any
 * arguments (Linux 5.13 for pointers). So they ask whether their pointers are NULL, which they
 * never are; and cost a call, so what every packet does is inlined.
 */
#pragma once

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#define __function __noinline

/* The next number of `counter`. Atomic: a softirq may interrupt a socket program here (5.12). */
static __always_inline __u64 kernel_number(__u64 *counter)
{
	return __sync_fetch_and_add(counter, 1) + 1;
}

/* What the refused system call says (6.1). */
static __always_inline void kernel_set_errno(int error)
{
	bpf_set_retval(-error);
}
