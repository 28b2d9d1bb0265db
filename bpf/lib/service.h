/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services: which backend serves this frontend? */
#pragma once

#include "address.h"
#include "abi/service.h"

#define FRONTENDS_MAX 32768
#define BACKENDS_MAX  131072
#define BACKEND_TRIES 8

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
	__uint(max_entries, FRONTENDS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct slot_key);
	__type(value, __u32);
	__uint(max_entries, BACKENDS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct backend);
	__uint(max_entries, BACKENDS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct rev_nat);
	__uint(max_entries, FRONTENDS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} podwire_rev_nat SEC(".maps");

static __always_inline struct frontend *frontend_find(const union address *address, __be16 port,
						      __u8 protocol)
{
	struct frontend_key key = {.address = *address, .port = port, .protocol = protocol};

	return bpf_map_lookup_elem(&podwire_frontends, &key);
}

static __always_inline struct backend *backend_find(__u32 id)
{
	return bpf_map_lookup_elem(&podwire_backends, &id);
}

static __always_inline bool backend_is_terminating(const struct backend *backend)
{
	return backend->flags & BACKEND_TERMINATING;
}

/* With affinity the client's number chooses, as long as the set is the same. */
static __always_inline __u32 backend_number_of(__u32 client)
{
	return client * 2654435761U; /* Knuth's multiplier: neighbours part */
}

static __always_inline bool frontend_has_affinity(const struct frontend *frontend)
{
	return frontend->flags & FRONTEND_AFFINITY;
}

/* The backend that `number` falls on, and its id; one that terminates only if there is no other. */
static __always_inline struct backend *backend_choose(const struct frontend *frontend, __u32 number,
						      __u32 *id)
{
	struct slot_key key = {.set = frontend->set};
	struct backend *last = NULL;

	if (!frontend->count)
		return NULL;
	key.slot = number % frontend->count;
	for (int i = 0; i < BACKEND_TRIES; i++) {
		__u32 *slot = bpf_map_lookup_elem(&podwire_slots, &key);
		struct backend *backend = slot ? backend_find(*slot) : NULL;

		if (backend) {
			*id = *slot;
			last = backend;
			if (!backend_is_terminating(backend))
				return backend;
		}
		if (++key.slot >= frontend->count)
			key.slot = 0;
	}
	return last;
}

static __always_inline struct rev_nat *rev_nat_find(__u32 number)
{
	return bpf_map_lookup_elem(&podwire_rev_nat, &number);
}
