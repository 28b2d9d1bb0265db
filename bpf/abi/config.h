/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the loader decides before the programs are verified: constants, so that what
 * is off costs nothing. Each object has all of them; the loader sets them by name
 * between open and load.
 */
#pragma once

#include "address.h"

/* The text stands in the BTF of the object, next to the type. */
#define CONFIG(type, name, initial, help)                                                          \
	const volatile type config_##name __attribute__((btf_decl_tag(help))) = initial

CONFIG(union address, node_ipv4, {},
       "address of this node on the underlay, v4-mapped; zero = none");
CONFIG(union address, node_ipv6, {}, "address of this node on the underlay; zero = none");
CONFIG(__u32, network_device, 0,
       "ifindex of the device towards other nodes: nobody of the cluster comes from another; 0 = "
       "any");
CONFIG(__u32, tunnel_device, 0, "ifindex of the tunnel device; 0 = native routing");
CONFIG(__u32, tunnel_port, 8472, "UDP port of the tunnel, which no pod may send to");
CONFIG(__u32, tunnel_token, 0,
       "what tells the tunnel's packets from the network device from those of any other; 0 = any "
       "may be");
CONFIG(__u32, tunnel_mtu, 1450, "largest IP packet that fits into the tunnel, bytes");
CONFIG(__u32, trace_interval, 5, "s between trace events of one connection");
CONFIG(__u32, trace_events, 1, "1 = emit trace events");
CONFIG(__u32, verdict_events, 1, "1 = emit policy verdict events");
CONFIG(__u32, socket_events, 1, "1 = emit an event for each address translated at the socket");
CONFIG(__u32, event_share, 512,
       "records a second of one endpoint and direction while the ring is more than half full; "
       "0 = no limit");
CONFIG(__u32, policy_audit, 0, "1 = what policy denies is reported but passes");
CONFIG(__u32, ct_tcp_established, 8000, "s an open TCP connection is remembered without packets");
CONFIG(__u32, ct_tcp_syn, 60, "s a TCP connection is remembered before its first reply");
CONFIG(__u32, ct_tcp_closing, 10, "s a TCP connection is remembered after both sides closed it");
CONFIG(__u32, ct_tcp_reset, 120, "s a TCP connection is remembered after a reset");
CONFIG(__u32, ct_table, 65536, "connections the table has room for");
CONFIG(__u32, neighbour_share, 16,
       "packets a second of one endpoint that make the node ask for a neighbour; 0 = no limit");
CONFIG(__u32, ct_share, 16384,
       "connections one endpoint may open, or be sent from afar, that are never forgotten before "
       "they expire; 0 = all");
CONFIG(__u32, proxy, 0, "1 = processes of this node that mark their packets speak for others");
CONFIG(__u32, ct_any, 60, "s any other flow is remembered without packets");
