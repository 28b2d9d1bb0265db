"""`without_links.py CONFIG`: podwire's agent in a process for which there are no BPF links.

A seccomp filter answers bpf(BPF_LINK_CREATE, …) with EINVAL, as kernels before 5.7 do. x86-64 and
arm64.
"""

import ctypes
import errno
import platform
import struct
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
BPF_LINK_CREATE = 28
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def instruction(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, k)


PROGRAM = b"".join(
    [
        instruction(LOAD, NUMBER),
        instruction(EQUAL, SYS_BPF, 0, 3),
        instruction(LOAD, FIRST_ARGUMENT),
        instruction(EQUAL, BPF_LINK_CREATE, 0, 1),
        instruction(RETURN, ERRNO | errno.EINVAL),
        instruction(RETURN, ALLOW),
    ]
)


def filter_links() -> None:
    code = ctypes.create_string_buffer(PROGRAM, len(PROGRAM))
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", len(PROGRAM) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    from podwire.agent.__main__ import main

    filter_links()
    main(["--config", sys.argv[1]])
