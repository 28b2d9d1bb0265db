/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets and bytes by outcome, per CPU. */
#pragma once

struct metric_key {
	__u8 reason;    /* enum drop_reason; 0 = forwarded */
	__u8 direction; /* enum direction */
	__u16 pad;
};

struct metric_value {
	__u64 packets;
	__u64 bytes;
};
