/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For measuring only: makes each repetition of a test run another packet, then goes on to
 * the program that is measured. What the writing itself costs is measured with a next
 * program that does nothing.
 */
#include "lib/net.h"
#include "abi/conntrack.h"
#include "abi/endpoint.h"

const volatile __u32 destination_base; /* host byte order */
const volatile __u32 destination_mask; /* that many low bits are random */
const volatile __u32 source_port_base = 1024;
const volatile __u32 source_port_mask; /* counts through these */
const volatile __u32 flags = 0x10;
const volatile __u32 destination_port = 80;
const volatile __u32 bump;	      /* 1 = another policy epoch each time */
const volatile __u32 identity_device; /* this device's pod gets another identity each time */
const volatile __u32 identity_mask;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} next_program SEC(".maps");

/* The measured program's own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct node_state);
	__uint(max_entries, 1);
} podwire_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct endpoint);
	__uint(max_entries, 4096);
} podwire_devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u8[64]);
	__uint(max_entries, 1);
} template SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} counter SEC(".maps");

SEC("tc")
int vary(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;
	__u32 zero = 0;
	__u64 *number = bpf_map_lookup_elem(&counter, &zero);
	__u64 *from = bpf_map_lookup_elem(&template, &zero);
	__u32 address = destination_base;
	__u32 port = source_port_base;

	if (!number || !from || (void *)(data + 54) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	__builtin_memcpy(data, from, 54);
	(*number)++;
	if (destination_mask)
		address += bpf_get_prandom_u32() & destination_mask;
	port += *number & source_port_mask;
	if (identity_device) {
		__u32 device = identity_device;
		struct endpoint *pod = bpf_map_lookup_elem(&podwire_devices, &device);

		if (pod)
			pod->identity = 10000 + (bpf_get_prandom_u32() & identity_mask);
	}
	if (bump) {
		struct node_state *state = bpf_map_lookup_elem(&podwire_state, &zero);

		if (state)
			state->policy_epoch++;
	}
	*(__be32 *)(data + 30) = bpf_htonl(address);
	*(__be16 *)(data + 34) = bpf_htons(port);
	*(__be16 *)(data + 36) = bpf_htons(destination_port);
	data[47] = flags;
	bpf_tail_call(skb, &next_program, 0);
	return TC_ACT_SHOT;
}

SEC("tc")
int nothing(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
