/* SPDX-License-Identifier: Apache-2.0 */
/* What podwire.bpf.library calls beside libbpf itself: calls that need structs whose
 * layout Python should not know, and the loop over ring buffer records.
 *
 * All return 0 or a count on success and -errno on failure.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <net/if.h>
#include <linux/bpf.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

static void podwire_log(int level, char *text);

static int print_to_python(enum libbpf_print_level level, const char *format, va_list arguments)
{
	char *text = NULL;
	int length = vasprintf(&text, format, arguments);

	if (length < 0)
		return length;
	podwire_log(level, text);
	free(text);
	return length;
}

static void pw_capture_log(void)
{
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	libbpf_set_print(print_to_python);
}

struct pw_map_info {
	uint32_t id, type, key_size, value_size, max_entries, flags;
	char name[16];
};

static int pw_map_info(int fd, struct pw_map_info *out)
{
	struct bpf_map_info info = {};
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &length))
		return -errno;
	out->id = info.id;
	out->type = info.type;
	out->key_size = info.key_size;
	out->value_size = info.value_size;
	out->max_entries = info.max_entries;
	out->flags = info.map_flags;
	memcpy(out->name, info.name, sizeof(out->name));
	return 0;
}

struct pw_prog_info {
	uint32_t id, type, xlated_length, jited_length, verified_instructions;
	uint8_t tag[8];
	char name[16];
	uint64_t load_time, run_time_ns, run_count;
};

static int pw_prog_info(int fd, struct pw_prog_info *out)
{
	struct bpf_prog_info info = {};
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &length))
		return -errno;
	out->id = info.id;
	out->type = info.type;
	out->xlated_length = info.xlated_prog_len;
	out->jited_length = info.jited_prog_len;
	out->verified_instructions = info.verified_insns;
	memcpy(out->tag, info.tag, sizeof(out->tag));
	memcpy(out->name, info.name, sizeof(out->name));
	out->load_time = info.load_time;
	out->run_time_ns = info.run_time_ns;
	out->run_count = info.run_cnt;
	return 0;
}

struct pw_link_info {
	uint32_t type, id, program, ifindex, attach_type;
	uint64_t cgroup;
};

enum { LINK_TYPE_CGROUP = 3, LINK_TYPE_XDP = 6, LINK_TYPE_TCX = 11 };

static int pw_link_info(int fd, struct pw_link_info *out)
{
	/* The union behind {type, id, prog_id, pad}; libbpf 1.1's headers do not know tcx. */
	struct {
		__u32 type, id, prog_id, pad;
		union {
			struct {
				__u32 ifindex, attach_type;
			} device;
			struct {
				__u64 id;
				__u32 attach_type;
			} cgroup;
			__u8 room[128];
		};
	} info = {};
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &length))
		return -errno;
	out->type = info.type;
	out->id = info.id;
	out->program = info.prog_id;
	out->ifindex = 0;
	out->attach_type = 0;
	out->cgroup = 0;
	if (info.type == LINK_TYPE_TCX || info.type == LINK_TYPE_XDP) {
		out->ifindex = info.device.ifindex;
		out->attach_type = info.type == LINK_TYPE_TCX ? info.device.attach_type : BPF_XDP;
	} else if (info.type == LINK_TYPE_CGROUP) {
		out->cgroup = info.cgroup.id;
		out->attach_type = info.cgroup.attach_type;
	}
	return 0;
}

static int pw_link_create(int prog_fd, int target, int attach_type, uint32_t flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
	int fd = bpf_link_create(prog_fd, target, attach_type, flags ? &options : NULL);

	return fd < 0 ? -errno : fd;
}

static int pw_link_update(int link_fd, int new_prog_fd)
{
	return bpf_link_update(link_fd, new_prog_fd, NULL) ? -errno : 0;
}

/* clsact, for kernels without tcx: attach (or replace) at a fixed handle. */
static int pw_clsact(int ifindex, int egress, int prog_fd, uint32_t handle, uint32_t priority)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = handle, .priority = priority);
	int result;

	if (prog_fd < 0)
		return bpf_tc_detach(&hook, &options);
	result = bpf_tc_hook_create(&hook);
	if (result && result != -EEXIST)
		return result;
	options.prog_fd = prog_fd;
	options.flags = BPF_TC_F_REPLACE;
	return bpf_tc_attach(&hook, &options);
}

/* Id of the program at that handle, or -errno. */
static int64_t pw_clsact_query(int ifindex, int egress, uint32_t handle, uint32_t priority)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = handle, .priority = priority);
	int result = bpf_tc_query(&hook, &options);

	return result ? (int64_t)result : (int64_t)options.prog_id;
}

static int pw_load_probe(int type, int attach_type, const void *instructions, uint32_t count)
{
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = attach_type);
	int fd = bpf_prog_load(type, "podwire_probe", "GPL", instructions, count, &options);

	return fd < 0 ? -errno : fd;
}

/* What the verifier must know of `int main(void *)` that calls the global `int called(int *)`. */
static int describe_call(struct btf *btf, uint32_t *functions)
{
	int number = btf__add_int(btf, "int", 4, BTF_INT_SIGNED);
	int pointer = btf__add_ptr(btf, number);
	int context = btf__add_ptr(btf, 0);
	int proto;

	proto = btf__add_func_proto(btf, number);
	btf__add_func_param(btf, "context", context);
	functions[0] = btf__add_func(btf, "main", BTF_FUNC_GLOBAL, proto);
	proto = btf__add_func_proto(btf, number);
	btf__add_func_param(btf, "value", pointer);
	functions[1] = btf__add_func(btf, "called", BTF_FUNC_GLOBAL, proto);
	return btf__load_into_kernel(btf);
}

/* A program that gives a pointer to a global function: its descriptor or -errno. */
static int pw_load_pointer_call(int type)
{
	struct bpf_insn instructions[] = {
		{ .code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = -8 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 1, .src_reg = 10 },
		{ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 1, .imm = -8 },
		{ .code = BPF_JMP | BPF_CALL, .src_reg = BPF_PSEUDO_CALL, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	struct bpf_func_info functions[2] = { { .insn_off = 0 }, { .insn_off = 5 } };
	LIBBPF_OPTS(bpf_prog_load_opts, options, .func_info = functions, .func_info_cnt = 2,
		    .func_info_rec_size = sizeof(functions[0]));
	struct btf *btf = btf__new_empty();
	uint32_t ids[2];
	int fd;

	if (!btf)
		return -errno;
	fd = describe_call(btf, ids);
	if (!fd) {
		functions[0].type_id = ids[0];
		functions[1].type_id = ids[1];
		options.prog_btf_fd = btf__fd(btf);
		fd = bpf_prog_load(type, "podwire_probe", "GPL", instructions, 7, &options);
		fd = fd < 0 ? -errno : fd;
	}
	btf__free(btf);
	return fd;
}

static int pw_map_create(int type, const char *name, uint32_t key_size, uint32_t value_size,
			 uint32_t max_entries, uint32_t flags)
{
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = flags);
	int fd = bpf_map_create(type, name, key_size, value_size, max_entries, &options);

	return fd < 0 ? -errno : fd;
}

/* Variable `name` in the data section `section` (".rodata", ".data", ".bss"): its offset
 * and size there. */
static int pw_find_variable(struct bpf_object *object, const char *section, const char *name,
			    uint32_t *offset, uint32_t *size)
{
	const struct btf *btf = bpf_object__btf(object);
	const struct btf_var_secinfo *item;
	const struct btf_type *data;
	int id, i;

	if (!btf)
		return -ENOENT;
	id = btf__find_by_name_kind(btf, section, BTF_KIND_DATASEC);
	if (id < 0)
		return -ENOENT;
	data = btf__type_by_id(btf, id);
	item = btf_var_secinfos(data);
	for (i = 0; i < btf_vlen(data); i++, item++) {
		const struct btf_type *variable = btf__type_by_id(btf, item->type);

		if (strcmp(btf__name_by_offset(btf, variable->name_off), name))
			continue;
		*offset = item->offset;
		*size = item->size;
		return 0;
	}
	return -ENOENT;
}

struct pw_test_run {
	uint32_t retval, data_size_out, context_size_out, duration_ns;
};

static int pw_test_run(int prog_fd, const void *data, uint32_t data_size, void *data_out,
		       uint32_t data_out_size, const void *context, void *context_out,
		       uint32_t context_size, uint32_t repeat, struct pw_test_run *out)
{
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = data, .data_size_in = data_size,
		    .data_out = data_out, .data_size_out = data_out_size, .ctx_in = context,
		    .ctx_size_in = context_size, .ctx_out = context_out,
		    .ctx_size_out = context_out ? context_size : 0, .repeat = repeat);

	if (bpf_prog_test_run_opts(prog_fd, &options))
		return -errno;
	out->retval = options.retval;
	out->data_size_out = options.data_size_out;
	out->context_size_out = options.ctx_size_out;
	out->duration_ns = options.duration;
	return 0;
}

/* One batch; *count is room on entry and what was done on return. -ENOENT = it was the last. */
static int pw_lookup_batch(int fd, void *in, void *out, void *keys, void *values, uint32_t *count,
			   int and_delete)
{
	int result = and_delete ?
			     bpf_map_lookup_and_delete_batch(fd, in, out, keys, values, count, NULL) :
			     bpf_map_lookup_batch(fd, in, out, keys, values, count, NULL);

	return result ? -errno : 0;
}

static int pw_update_batch(int fd, const void *keys, const void *values, uint32_t *count)
{
	return bpf_map_update_batch(fd, keys, values, count, NULL) ? -errno : 0;
}

static int pw_delete_batch(int fd, const void *keys, uint32_t *count)
{
	return bpf_map_delete_batch(fd, keys, count, NULL) ? -errno : 0;
}

struct pw_ring_counts {
	uint64_t discarded; /* given up by the program */
	uint64_t foreign;   /* of another size than the caller's records */
};

/* Copy up to `room` records of `record_size` bytes out of the ring. The kernel publishes a
 * record by clearing its busy bit, so its length is read with acquire; the room is given back
 * by one release store at the end. */
static int64_t pw_ring_read(void *consumer_page, const void *producer_page, uint64_t ring_size,
			    uint64_t page_size, void *out, uint32_t record_size, uint64_t room,
			    struct pw_ring_counts *counts)
{
	uint64_t *consumer = consumer_page;
	const uint8_t *data = (const uint8_t *)producer_page + page_size;
	uint64_t position = __atomic_load_n(consumer, __ATOMIC_RELAXED);
	uint64_t end = __atomic_load_n((const uint64_t *)producer_page, __ATOMIC_ACQUIRE);
	uint64_t copied = 0;

	while (position < end && copied < room) {
		const uint8_t *record = data + (position & (ring_size - 1));
		uint32_t header = __atomic_load_n((const uint32_t *)record, __ATOMIC_ACQUIRE);
		uint32_t length = header & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);

		if (header & BPF_RINGBUF_BUSY_BIT)
			break;
		if (header & BPF_RINGBUF_DISCARD_BIT) {
			counts->discarded++;
		} else if (length != record_size) {
			counts->foreign++;
		} else {
			memcpy((uint8_t *)out + copied * record_size,
			       record + BPF_RINGBUF_HDR_SZ, record_size);
			copied++;
		}
		position += (length + BPF_RINGBUF_HDR_SZ + 7) & ~7ULL;
	}
	__atomic_store_n(consumer, position, __ATOMIC_RELEASE);
	return copied;
}
