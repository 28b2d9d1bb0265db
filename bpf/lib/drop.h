/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Drops: the only way a packet ends here. Counted, told, never silent. */
#pragma once

#include "event.h"
#include "metrics.h"

__function int drop(struct __ctx_buff *ctx, struct flow *flow, __u32 reason)
{
	if (!flow)
		return CTX_DROP;
	metrics_count(reason, flow->direction, flow->length);
	event_emit(ctx, flow, EVENT_DROP, 0, reason);
	return CTX_DROP;
}
