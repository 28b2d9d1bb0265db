/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Metrics: packets and bytes by outcome. An array per CPU, for a hash costs more than
 * the counting; its index is the bytes of struct metric_key.
 */
#pragma once

#include "net.h"
#include "abi/metrics.h"

#define METRICS_MAX 1024 /* reason | direction << 8 */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(struct metric_key));
	__type(value, struct metric_value);
	__uint(max_entries, METRICS_MAX);
} podwire_metrics SEC(".maps");

static __always_inline void metrics_count(__u8 reason, __u8 direction, __u32 bytes)
{
	__u32 index = reason | (direction & 3) << 8;
	struct metric_value *value = bpf_map_lookup_elem(&podwire_metrics, &index);

	if (!value)
		return;
	/* This CPU's own, and softirqs do not nest. The socket programs' few may race. */
	value->packets++;
	value->bytes += bytes;
}
