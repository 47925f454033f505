"""What a device can do: its native precision; its peak, measured; and a CPU's memory.

The peak is the denominator of MFU.

A data sheet's peak tells nothing of a virtual CPU's share, of clocks under load or
of a power limit, so the fastest of some large square products stands for it. It
gives up the last percents of a peak that only hand-tuned shapes reach.
"""

import ctypes
import platform
import time
from functools import lru_cache

import torch

# Rows of a square product: large enough that starting it costs nothing beside it.
_SIZES = {"cpu": 2048, "cuda": 8192}
_SECONDS = 0.3


# Names of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Lets this process keep what a step frees for the next one, where glibc allocates.

    It would give large pieces back to the system, and each page that it takes again is a
    fault and is cleared: 30,000 a step of nano.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def dtype_for(precision: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively: emulated, it is many times slower."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if precision == "bf16" or (precision == "auto" and native):
        return torch.bfloat16
    return torch.float32


@lru_cache
def peak_flops(device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> float:
    """Floating-point operations a second of ``device`` in matrix products of ``dtype``.

    A multiplication and an addition count as two. Takes about half a second on the
    first call with some (device, dtype), which should find the device idle, and
    nothing afterwards. On a CPU all threads of torch work together.
    """
    size = _SIZES.get(torch.device(device).type, 4096)
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    best = float("inf")
    began = time.perf_counter()
    # The first products warm caches, clocks and kernels up; the best of all counts.
    while best == float("inf") or time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * float(size) ** 3 / best


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
