/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Why a packet was dropped. The numbers are an API: those below 200 are Hubble's
 * DropReason numbers where the meaning is the same, so that its clients name them;
 * podwire's own begin at 220. A number is never used again for another reason.
 *
 * The comment behind each is its text in tables and docs.
 */
#pragma once

enum drop_reason {
	DROP_INVALID_SOURCE_MAC = 130,       /* Invalid source mac */
	DROP_INVALID_SOURCE_IP = 132,        /* Invalid source ip */
	DROP_POLICY_DENIED = 133,            /* Policy denied */
	DROP_INVALID_PACKET = 134,           /* Invalid packet */
	DROP_CT_INVALID_HEADER = 135,        /* CT: Truncated or invalid header */
	DROP_CT_UNKNOWN_PROTOCOL = 137,      /* CT: Unknown L4 protocol */
	DROP_UNSUPPORTED_L3 = 139,           /* Unsupported L3 protocol */
	DROP_WRITE_ERROR = 141,              /* Error writing to packet */
	DROP_UNKNOWN_L4 = 142,               /* Unknown L4 protocol */
	DROP_NO_TUNNEL_KEY = 147,            /* Error retrieving tunnel key */
	DROP_UNKNOWN_L3_TARGET = 150,        /* Unknown L3 target address */
	DROP_UNROUTABLE = 151,               /* Stale or unroutable IP */
	DROP_L3_CHECKSUM = 153,              /* Error while correcting L3 checksum */
	DROP_L4_CHECKSUM = 154,              /* Error while correcting L4 checksum */
	DROP_CT_INSERT_FAILED = 155,         /* CT: Map insertion failed */
	DROP_INVALID_EXTENSION_HEADER = 156, /* Invalid IPv6 extension header */
	DROP_NO_BACKEND = 158,               /* Service backend not found */
	DROP_NO_TUNNEL_ENDPOINT = 160,       /* No tunnel/encapsulation endpoint (datapath BUG!) */
	DROP_UNSUPPORTED_L2 = 166,           /* Unsupported L2 protocol */
	DROP_ENCAP_PROHIBITED = 170,         /* Encapsulation traffic is prohibited */
	DROP_INVALID_IDENTITY = 171,         /* Invalid identity */
	DROP_FRAGMENT_NOT_FOUND = 175,       /* First logical datagram fragment not found */
	DROP_FORBIDDEN_ICMPV6 = 176,         /* Forbidden ICMPv6 message */
	DROP_POLICY_DENY = 181,              /* Policy denied by denylist */
	DROP_TTL_EXCEEDED = 196,             /* TTL exceeded */
	DROP_ENDPOINT_NOT_READY = 203,       /* Endpoint not ready */
	DROP_FRAGMENT_INSERT_FAILED = 220,   /* Fragment: Map insertion failed */
	DROP_TOO_BIG = 221,                  /* Packet is larger than the path allows */
	DROP_REDIRECT_FAILED = 222,          /* Redirect to the endpoint failed */
	DROP_NEIGHBOURS = 223,               /* Too many neighbours to ask for */
	DROP_PEER_UNKNOWN = 225, /* Policy denied: a map is full, the peer is not known */
};
