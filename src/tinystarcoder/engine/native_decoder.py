"""The native decoder: the C++ engine of ``csrc/`` behind the protocol. docs/engine.md explains it.

A pass takes any number of slots at once, and a token's logits depend on its
own sequence alone: not on the batch, on how a prompt was cut, or on the number
of threads, bit for bit. It gives up rounding-free arithmetic in every
precision but fp32.

Environment: ``TINYSTARCODER_THREADS`` (by default the physical cores),
``TINYSTARCODER_ISA`` (amx, avx512, avx2 or portable; by default the fastest
that the machine has).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from ..errors import RequestError
from ..model.checkpoint import Checkpoint
from ..model.config import ModelConfig
from . import packed_weights
from .decoder import Logits, check_batch, check_ids, check_length
from .packed_weights import DEFAULT_PRECISION, Precision

if TYPE_CHECKING:
    from . import _native
else:
    try:
        from . import _native
    except ImportError:
        _native = None

PRECISIONS: tuple[str, ...] = get_args(Precision)

HOW_TO_BUILD = (
    "the native engine is not built here, and numpy is many times slower; "
    "install a C++ compiler (g++ or clang++), then tinystarcoder again"
)


def is_built() -> bool:
    """Whether this installation has the native engine."""
    return _native is not None


def instruction_sets() -> list[str]:
    """Those that the native engine can use on this machine, fastest first; none if not built."""
    return _native.instruction_sets() if is_built() else []


def instruction_set() -> str:
    """``$TINYSTARCODER_ISA``, or the fastest. RequestError where the machine does not run it."""
    return _checked_instruction_set(os.environ.get("TINYSTARCODER_ISA") or instruction_sets()[0])


def _checked_instruction_set(name: str) -> str:
    if name not in instruction_sets():
        raise RequestError(
            f"instruction set {name!r} (TINYSTARCODER_ISA): this machine runs "
            f"{', '.join(instruction_sets())}"
        )
    return name


def default_threads() -> int:
    """``$TINYSTARCODER_THREADS``, or the physical cores that this process may run on."""
    if chosen := os.environ.get("TINYSTARCODER_THREADS"):
        return _checked_threads("TINYSTARCODER_THREADS", chosen)
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 1) // (2 if os.name == "nt" else 1))
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    return len(cores)


def _checked_threads(name: str, value: object) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
        raise RequestError(f"{name} {text}: must be a whole number from 1 to 1024")
    return int(text)


class NativeDecoder:
    """A checkpoint's forward pass in C++. Implements :class:`~.decoder.Decoder`.

    Raises CheckpointError for weights that are not finite, RequestError for an
    unknown precision, instruction set or number of threads.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision = DEFAULT_PRECISION,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise RequestError(f"precision {precision!r}: must be one of {', '.join(PRECISIONS)}")
        number = default_threads() if threads is None else _checked_threads("threads", threads)
        self.config: ModelConfig = checkpoint.config
        self.precision = precision
        plan = packed_weights.plan(checkpoint.config, precision)
        chosen = instruction_set() if isa is None else _checked_instruction_set(isa)
        try:
            weights = packed_weights.packed(checkpoint, precision, plan)
            self._engine = _native.Engine(plan, weights, number, chosen)
        except ValueError as error:
            raise RequestError(str(error)) from error

    @property
    def threads(self) -> int:
        return self._engine.threads

    @property
    def instruction_set(self) -> str:
        return self._engine.instruction_set

    @property
    def cache_bytes(self) -> int:
        """What the slots' keys and values take."""
        return self._engine.cache_bytes

    def allocate(self) -> int:
        return self._engine.allocate()

    def release(self, slot: int) -> None:
        self._engine.release(slot)

    def length(self, slot: int) -> int:
        return self._engine.length(slot)

    def truncate(self, slot: int, length: int) -> None:
        check_length(self._engine.length(slot), length)
        self._engine.truncate(slot, length)

    def copy(self, source: int, target: int) -> None:
        self._engine.copy(source, target)

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        check_ids(self.config, self._engine.length(slot), ids)
        rows = self._forward([slot], [ids], all_logits)
        return rows if all_logits else rows[0]

    def extend_batch(
        self, requests: Sequence[tuple[int, Sequence[int]]], *, all_logits: bool = False
    ) -> list[Logits]:
        check_batch(self.config, requests, self.length)
        if not requests:
            return []
        slots, every = [slot for slot, _ in requests], [ids for _, ids in requests]
        rows = self._forward(slots, every, all_logits)
        if not all_logits:
            return list(rows)
        ends = np.cumsum([len(ids) for ids in every])
        return np.split(rows, ends[:-1])

    def _forward(self, slots: list[int], every: list[Sequence[int]], all_logits: bool) -> Logits:
        counts = [len(ids) for ids in every]
        flat = np.concatenate([np.asarray(ids, np.int32) for ids in every])
        rows = sum(counts) if all_logits else len(slots)
        logits = np.empty((rows, self.config.vocab_size), np.float32)
        self._engine.forward(slots, counts, flat, all_logits, logits)
        return logits
