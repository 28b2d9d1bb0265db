/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Policy in two stages. Stage one: which class of peers is this identity for this
 * policy? Stage two: what does the policy say to that class on this port?
 *
 * Policies and classes are content-addressed (a hash of the rules, a hash of the
 * clauses that select the class), so a row never changes its meaning: identities
 * come and go by one write each, a changed policy is written whole under a new number
 * and the endpoint switched to it by one write.
 */
#pragma once

enum policy_class {
	POLICY_CLASS_ANY = 0, /* identities that no clause of the policy names */
};

enum policy_verdict {
	POLICY_DEFAULT_DENY = 0, /* nothing allows it */
	POLICY_ALLOW = 1,
	POLICY_DENY = 2, /* a deny rule forbids it */
};

/* How precise the deciding clause was (Hubble's policy match types). */
enum policy_match {
	MATCH_NONE = 0,
	MATCH_L3 = 1,
	MATCH_L3_L4 = 2,
	MATCH_L4 = 3,
	MATCH_ALL = 4,
	MATCH_L3_PROTO = 5,
	MATCH_PROTO_ONLY = 6,
};

#define PEER_BLOCK_BITS 4

/* Identities by blocks of 16: what is asked about many of them stays in the processor's cache. A
 * block is written whole, so an identity that is POLICY_CLASS_ANY in it is that.
 */
struct policy_peers_key {
	__u32 policy;
	__u32 block;    /* identity / 16 */
	__u8 direction; /* enum direction */
	__u8 pad[3];
};

struct policy_peers {
	__u32 classes[16]; /* by the identity's low bits */
};

/* LPM. Always whole up to direction (72 bits); then protocol (80); then port bits (80..96). */
struct policy_key {
	__u32 prefix_length;
	__u32 policy;
	__u32 peer_class;
	__u8 direction;
	__u8 protocol;
	__be16 port; /* the destination's; ICMP: type in the high byte, code in the low */
};

#define POLICY_PREFIX_DIRECTION 72
#define POLICY_PREFIX_PROTOCOL  80
#define POLICY_PREFIX_PORT      96

struct policy_entry {
	__u32 rule;       /* state table `rules`: the rule that decided, also for default deny */
	__u16 proxy_port; /* 0 = no proxy */
	__u8 verdict;     /* enum policy_verdict */
	__u8 match;       /* enum policy_match */
};
