/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The ground of every program: kernel types, helpers, and the numbers of the wire
 * that are macros in the kernel's headers and so not in its BTF. What differs between
 * kernels comes from kernel/modern.h or kernel/legacy.h, which the compiler is given in front.
 */
#pragma once

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "abi/address.h"
#include "abi/config.h"

#define ETH_HLEN  14
#define ETH_ALEN  6
#define ETH_P_IP  0x0800
#define ETH_P_ARP 0x0806

#define ETH_P_IPV6 0x86dd

#define ARP_LENGTH 28
#define ARP_SENDER 14 /* offset of the sender's protocol address */

#define TC_ACT_OK       0
#define TC_ACT_SHOT     2
#define TC_ACT_REDIRECT 7

#define PACKET_HOST 0

#define PROTOCOL_ICMPV6   58
#define PROTOCOL_HOPOPTS  0
#define PROTOCOL_ROUTING  43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AUTH     51
#define PROTOCOL_DSTOPTS  60

#define IPV4_MORE_FRAGMENTS  0x2000
#define IPV4_DONT_FRAGMENT   0x4000
#define IPV4_FRAGMENT_OFFSET 0x1fff

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_NO_ECHO         0xffff /* a port, of messages that are no echo */
#define ICMP_ECHO_REPLY      0
#define ICMP_UNREACHABLE     3
#define ICMP_ECHO_REQUEST    8
#define ICMP_TIME_EXCEEDED   11
#define ICMP_PARAMETER       12
#define ICMPV6_UNREACHABLE   1
#define ICMPV6_PARAMETER     4
#define ICMPV6_ECHO_REQUEST  128
#define ICMPV6_ECHO_REPLY    129
#define ICMPV6_MLD_QUERY     130
#define ICMPV6_MLD_DONE      132
#define ICMPV6_ROUTER_SOL    133
#define ICMPV6_ROUTER_ADV    134
#define ICMPV6_NEIGHBOUR_SOL 135
#define ICMPV6_NEIGHBOUR_ADV 136
#define ICMPV6_REDIRECT      137
#define ICMPV6_MLD2_REPORT   143

/* errno, as kernel calls return them */
#define ERR_PERM        1
#define ERR_INVAL       22
#define ERR_HOSTUNREACH 113

#define NS_PER_S 1000000000ULL

/* The tunnel key up to its last member before Linux 5.19: earlier kernels refuse more, later ones
 * take less.
 */
#define TUNNEL_KEY_SIZE (offsetof(struct bpf_tunnel_key, tunnel_label) + sizeof(__u32))
