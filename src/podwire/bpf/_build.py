"""Build `podwire.bpf._libbpf`: libbpf and `shim.c` as a Python module (cffi, API mode).

``python src/podwire/bpf/_build.py`` puts the module beside this file; `make build` runs it.
In API mode the C compiler checks every declaration here against libbpf's own header, and each
call releases the interpreter lock.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent

DECLARATIONS = """
extern "Python" void podwire_log(int level, char *text);
void pw_capture_log(void);

struct bpf_object;
struct bpf_program;
struct bpf_map;

const char *libbpf_version_string(void);
int libbpf_num_possible_cpus(void);
int libbpf_probe_bpf_prog_type(int type, const void *options);
int libbpf_probe_bpf_map_type(int type, const void *options);
int libbpf_probe_bpf_helper(int type, int helper, const void *options);

struct bpf_object *bpf_object__open(const char *path);
int bpf_object__load(struct bpf_object *object);
void bpf_object__close(struct bpf_object *object);
struct bpf_program *bpf_object__next_program(const struct bpf_object *object, struct bpf_program *previous);
struct bpf_map *bpf_object__next_map(const struct bpf_object *object, const struct bpf_map *previous);
const char *bpf_program__name(const struct bpf_program *program);
const char *bpf_program__section_name(const struct bpf_program *program);
int bpf_program__type(const struct bpf_program *program);
int bpf_program__set_autoload(struct bpf_program *program, bool autoload);
int bpf_program__fd(const struct bpf_program *program);
int bpf_map__fd(const struct bpf_map *map);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__type(const struct bpf_map *map);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
uint32_t bpf_map__map_flags(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t entries);
int bpf_map__set_pin_path(struct bpf_map *map, const char *path);
bool bpf_map__is_internal(const struct bpf_map *map);
void *bpf_map__initial_value(struct bpf_map *map, size_t *size);

int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_get_next_key(int fd, const void *key, void *next);
int bpf_obj_pin(int fd, const char *path);
int bpf_obj_get(const char *path);
int bpf_program__set_log_level(struct bpf_program *program, uint32_t level);
int bpf_link_detach(int fd);
int bpf_prog_get_fd_by_id(uint32_t id);
int bpf_map_get_fd_by_id(uint32_t id);

struct pw_map_info { uint32_t id, type, key_size, value_size, max_entries, flags; char name[16]; };
struct pw_prog_info {
    uint32_t id, type, xlated_length, jited_length, verified_instructions;
    uint8_t tag[8]; char name[16]; uint64_t load_time, run_time_ns, run_count;
};
struct pw_link_info { uint32_t type, id, program, ifindex, attach_type; uint64_t cgroup; };
struct pw_test_run { uint32_t retval, data_size_out, context_size_out, duration_ns; };
struct pw_ring_counts { uint64_t discarded, foreign; };

int pw_map_info(int fd, struct pw_map_info *out);
int pw_prog_info(int fd, struct pw_prog_info *out);
int pw_link_info(int fd, struct pw_link_info *out);
int pw_link_create(int prog_fd, int target, int attach_type, uint32_t flags);
int pw_link_update(int link_fd, int new_prog_fd);
int pw_clsact(int ifindex, int egress, int prog_fd, uint32_t handle, uint32_t priority);
int64_t pw_clsact_query(int ifindex, int egress, uint32_t handle, uint32_t priority);
int pw_load_probe(int type, int attach_type, const void *instructions, uint32_t count);
int pw_load_pointer_call(int type);
int pw_map_create(int type, const char *name, uint32_t key_size, uint32_t value_size,
                  uint32_t max_entries, uint32_t flags);
int pw_find_variable(struct bpf_object *object, const char *section, const char *name,
                     uint32_t *offset, uint32_t *size);
int pw_test_run(int prog_fd, const void *data, uint32_t data_size, void *data_out, uint32_t data_out_size,
                const void *context, void *context_out, uint32_t context_size, uint32_t repeat,
                struct pw_test_run *out);
int pw_lookup_batch(int fd, void *in, void *out, void *keys, void *values, uint32_t *count, int and_delete);
int pw_update_batch(int fd, const void *keys, const void *values, uint32_t *count);
int pw_delete_batch(int fd, const void *keys, uint32_t *count);
int64_t pw_ring_read(void *consumer_page, const void *producer_page, uint64_t ring_size, uint64_t page_size,
                     void *out, uint32_t record_size, uint64_t room, struct pw_ring_counts *counts);
"""


def build() -> Path:
    """Compile the module; its path."""
    builder = cffi.FFI()
    builder.cdef(DECLARATIONS)
    # libbpf's header has enums where cffi is told int; the same to the machine.
    builder.set_source(
        "podwire.bpf._libbpf",
        (HERE / "shim.c").read_text(),
        libraries=["bpf"],
        extra_compile_args=["-O2", "-Wno-incompatible-pointer-types", "-Wno-discarded-qualifiers"],
    )
    with tempfile.TemporaryDirectory() as directory:
        made = Path(builder.compile(tmpdir=directory, verbose=True))
        # Put in place by one rename: a process that runs keeps the module it has.
        beside = HERE / (made.name + ".new")
        shutil.copy(made, beside)
        beside.rename(HERE / made.name)
    return HERE / made.name


if __name__ == "__main__":
    print(build())
