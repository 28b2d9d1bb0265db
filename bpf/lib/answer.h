/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answer: what a backend sends back shows the Service that its client asked. */
#pragma once

#include "service.h"
#include "translate.h"

/* An answer of a backend, to a client that asked a Service: the Service is its source. The
 * flow keeps the backend's address, for who reports it wants to know who answered.
 */
__function int answer_client(struct __ctx_buff *ctx, struct flow *flow)
{
	bool from_backend = true;
	struct rev_nat *service;
	union address backend;
	int reason = 0;
	__be16 port;

	if (!flow)
		return DROP_INVALID_PACKET;
	backend = flow->source;
	port = flow->source_port;
	service = rev_nat_find(flow->rev_nat);
	if (!service)
		return DROP_UNROUTABLE;
	if (flow->flags & FLOW_ERROR) {
		from_backend = address_equal(&flow->source, &flow->inner.local);
		reason = translate_inner(ctx, flow, TRANSLATE_DESTINATION, &service->address,
					 service->port);
	}
	if (!reason && from_backend)
		reason = translate(ctx, flow, TRANSLATE_SOURCE, &service->address, service->port);
	flow->source = backend;
	flow->source_port = port;
	flow->original = service->address;
	flow->original_port = service->port;
	return reason;
}
