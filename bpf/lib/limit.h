/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A limit: how many in a second. What counts is a row of somebody's own, so nobody uses up what
 * another may still do.
 */
#pragma once

#include "net.h"

/* Other rows may begin like this one. */
struct limit {
	__u32 second; /* CLOCK_BOOTTIME, s */
	__u32 taken;  /* in it */
};

/* One more, if it is within `most` in this second. CPUs may count one as another's: a limit need
 * not be exact.
 */
static __always_inline bool limit_admits(struct limit *limit, __u32 second, __u32 most)
{
	if (limit->second != second) {
		limit->second = second;
		limit->taken = 0;
	}
	if (limit->taken >= most)
		return false;
	limit->taken++;
	return true;
}
