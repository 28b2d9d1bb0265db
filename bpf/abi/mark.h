/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Marks: what programs and processes of this node tell the programs on a packet's way out. The
 * numbers are Cilium's, for proxies that are made for it. Nothing that came from a pod or a wire
 * has one: it is taken away where the packet comes in.
 */
#pragma once

/* The identity stands around the kind: its low 16 bits above it, the next 8 below. */
enum mark_kind {
	MARK_SNAT_DONE = 0x0300,
	MARK_PROXY_INGRESS = 0x0a00, /* a proxy sends on, to who was called, what it was sent */
	MARK_PROXY_EGRESS = 0x0b00,  /* the same, for who calls */
	MARK_HOST = 0x0c00,
	MARK_DECRYPTED = 0x0d00,
	MARK_ENCRYPT = 0x0e00,
};

#define MARK_KIND 0x0f00
