/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Mark: who sends what no device received. Asked on hooks that a packet leaves by, and nowhere
 * else: there only processes of the node itself have sent what comes without a device.
 */
#pragma once

#include "flow.h"
#include "abi/ipcache.h"
#include "abi/mark.h"

static __always_inline __u32 mark_identity(__u32 mark)
{
	return mark >> 16 | (mark & 0xff) << 16;
}

static __always_inline bool mark_is_proxy(__u32 mark)
{
	return (mark & MARK_KIND) == MARK_PROXY_INGRESS || (mark & MARK_KIND) == MARK_PROXY_EGRESS;
}

/* The node, or who a proxy of it speaks for: that one's packet is not the node's own, which is
 * never asked about. A proxy that does not say for whom is the node's.
 */
static __always_inline __u32 mark_sender(const struct __sk_buff *skb)
{
	__u32 identity = mark_identity(skb->mark);

	return config_proxy && mark_is_proxy(skb->mark) && identity ? identity : IDENTITY_HOST;
}
