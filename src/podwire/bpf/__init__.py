"""The door to the kernel's BPF: load programs, read and write maps, attach, read events.

`library` alone calls libbpf; `object`, `map`, `link`, `events` are what the stages use.
"""
