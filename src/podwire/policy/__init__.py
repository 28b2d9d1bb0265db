"""From policy objects to entries for the kernel: parse, resolve, compute."""
