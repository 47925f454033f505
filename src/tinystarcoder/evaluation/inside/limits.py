"""The limits that a sandboxed process puts on itself before it runs anything foreign.

Hard limits of the kernel, which an unprivileged process cannot raise again. No
further process or thread may be started: so what one process may have is what
there is, a fork bomb has no second process, and nothing outlives the first.
"""

import resource

FILE_BYTES = 8 << 20
OPEN_FILES = 32


def apply(cpu_seconds: int, memory: int) -> None:
    """``memory`` in bytes of address space."""
    # A second between the signal, which the exit status tells of, and the kill.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        # One is this process; the kernel counts it, and those around it, already.
        (resource.RLIMIT_NPROC, 1),
    ):
        resource.setrlimit(limit, (value, value))
