/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services: which backend serves this frontend? */
#pragma once

#include "address.h"
#include "abi/service.h"

#define FRONTENDS_MAX 32768
#define BACKENDS_MAX  131072
#define SLOT_TRIES    8

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
	__type(value, struct slot);
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

static __always_inline struct slot *slot_at(struct frontend *frontend, __u32 place)
{
	struct slot_key key = {.set = frontend->set, .slot = place};

	if (!frontend->set)
		return &frontend->slots[place & (FRONTEND_SLOTS - 1)];
	return bpf_map_lookup_elem(&podwire_slots, &key);
}

/* The backend that `number` falls on, or the next where a place could not be written. */
static __always_inline struct slot *slot_choose(struct frontend *frontend, __u32 number)
{
	__u32 place;

	if (!frontend->count)
		return NULL;
	place = number % frontend->count;
	for (int i = 0; i < SLOT_TRIES; i++) {
		struct slot *slot = slot_at(frontend, place);

		if (slot)
			return slot;
		if (++place >= frontend->count)
			place = 0;
	}
	return NULL;
}

static __always_inline struct rev_nat *rev_nat_find(__u32 number)
{
	return bpf_map_lookup_elem(&podwire_rev_nat, &number);
}
