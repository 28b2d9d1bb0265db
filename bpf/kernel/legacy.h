/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For Linux 5.10 up to what modern.h wants: the same names, made of what these kernels have.
 *
 * Functions marked __function are static: global ones take no pointers there. The verifier
 * follows each call anew, which costs time at load and nothing later.
 */
#pragma once

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

#define __function static __noinline

/* The next number of `counter`. Added atomically, so the count is right; but a softirq that
 * interrupts a socket program between adding and reading has given its number to both.
 */
static __always_inline __u64 kernel_number(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
	return *(volatile __u64 *)counter;
}

/* Nobody to tell: the refused system call says EPERM. */
static __always_inline void kernel_set_errno(int error)
{
}
