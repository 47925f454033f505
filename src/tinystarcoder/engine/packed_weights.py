"""A checkpoint in the native engine's layout, kept in a cache folder for an instant start.

Packing reads one tensor after another, so it takes the packed size and one
tensor of memory. The result is a file that is memory-mapped from then on; its
name is a hash of the weights' bytes, the architecture, the precision and the
layout's version, and its checksum is verified before use. Any file there may
be deleted at any time, and several processes may pack at once: each writes
aside and the last rename wins, with the same bytes. It gives up cleaning: what
was packed stays until somebody deletes it.

The folder is ``$TINYSTARCODER_CACHE``, or ``tinystarcoder`` in
``$XDG_CACHE_HOME`` or ``~/.cache``.
"""

import hashlib
import io
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from .. import files
from ..errors import CheckpointError
from ..model.checkpoint import Checkpoint
from ..model.config import ModelConfig

if TYPE_CHECKING:
    from . import _native
else:
    try:
        from . import _native
    except ImportError:
        _native = None

Precision = Literal["fp32", "bf16", "int8", "int4"]
DEFAULT_PRECISION: Precision = "int8"

Bytes = npt.NDArray[np.uint8]

# Goes up with every change of csrc/packing.*, so that older files are left alone.
LAYOUT = 2

_MAGIC = "tinystarcoder packed model"
# A page: what follows is mapped, and aligned.
_HEADER_BYTES = 4096
_ALIGNMENT = 64
# A file that changed this recently may change again within its time stamp's resolution.
_SETTLED_SECONDS = 2.0


def plan(config: ModelConfig, precision: Precision) -> "_native.Plan":
    """The layout of a model. CheckpointError where its numbers are beyond the engine."""
    try:
        return _native.Plan(
            vocab=config.vocab_size,
            positions=config.n_positions,
            width=config.n_embd,
            layers=config.n_layer,
            heads=config.n_head,
            inner=config.n_inner,
            multi_query=config.multi_query,
            tanh_gelu=config.activation_function == "gelu_pytorch_tanh",
            epsilon=config.layer_norm_epsilon,
            precision=precision,
        )
    except ValueError as error:
        raise CheckpointError(f"config: {error}") from error


def packed(checkpoint: Checkpoint, precision: Precision, layout: "_native.Plan") -> Bytes:
    """The packed model: from the cache, or packed now and put there.

    Where the cache cannot be written, with a warning, in memory alone. Raises
    CheckpointError for weights that are not finite.
    """
    own: Bytes | None = None
    try:
        folder = cache_folder()
        name = _key(checkpoint, precision, folder / "sources")
        path = folder / "packed" / f"{name}.bin"
        if (found := _open(path, name, layout.bytes)) is not None:
            return found
        own = _pack(checkpoint, layout)
        with files.atomic_file(path) as stream:
            stream.write(_header(name, own))
            stream.write(own.data)
        if not _large_pages_pay(layout.bytes):
            own = _map(path, layout.bytes)
    except (OSError, RuntimeError) as error:  # pathlib raises RuntimeError where there is no home.
        warnings.warn(
            f"packed weights are not kept: {error}; TINYSTARCODER_CACHE may name another folder",
            stacklevel=2,
        )
    return _pack(checkpoint, layout) if own is None else own


def _pack(checkpoint: Checkpoint, layout: "_native.Plan") -> Bytes:
    buffer = _memory(layout.bytes)
    buffer[:] = 0  # Between entries too: the file has the same bytes each time.
    for index, (weight, bias) in enumerate(layout.entries):
        try:
            _native.pack(
                layout,
                index,
                np.ascontiguousarray(checkpoint.tensor(weight)),
                np.ascontiguousarray(checkpoint.tensor(bias)) if bias else None,
                buffer,
            )
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.folder}: {error}") from error
    return buffer


def cache_folder() -> Path:
    """Where packed models are kept."""
    if chosen := os.environ.get("TINYSTARCODER_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tinystarcoder"


def _header(name: str, data: Bytes) -> bytes:
    facts = {"format": _MAGIC, "name": name, "checksum": _native.checksum(data)}
    return json.dumps(facts).encode().ljust(_HEADER_BYTES)


def _open(path: Path, name: str, size: int) -> Bytes | None:
    """The packed model of a cache file; None where there is none or it is damaged."""
    try:
        if path.stat().st_size != _HEADER_BYTES + size:
            return None
        with path.open("rb", buffering=0) as stream:
            header = stream.read(_HEADER_BYTES)
            data = _read(stream, size) if _large_pages_pay(size) else _map(path, size)
    except FileNotFoundError:
        return None
    return data if header == _header(name, data) else None


def _large_pages_pay(size: int) -> bool:
    """Whether to hold a copy in memory instead of a map of the file.

    Linux gives large pages to memory and small ones to files, and through
    small ones weights are read a quarter slower.
    """
    if sys.platform != "linux":
        return False
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return size < physical // 2


def _map(path: Path, size: int) -> Bytes:
    return np.memmap(path, np.uint8, "r", _HEADER_BYTES, (size,))


def _read(stream: io.FileIO, size: int) -> Bytes:
    own = _memory(size)
    filled = 0
    while filled < size and (more := stream.readinto(own[filled:].data)):  # At most 2 GB a call.
        filled += more
    return own


def _memory(size: int) -> Bytes:
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


def _key(checkpoint: Checkpoint, precision: Precision, memory: Path) -> str:
    digest = hashlib.sha256()
    facts = {"layout": LAYOUT, "precision": precision, "config": checkpoint.config.to_dict()}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for path in checkpoint.files:
        digest.update(_content(path, memory).encode())
    return digest.hexdigest()


def _content(path: Path, memory: Path) -> str:
    """SHA-256 of a file, computed once for as long as its size, time and inode stay."""
    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
    remembered = memory / hashlib.sha256(identity.encode()).hexdigest()
    try:
        known = remembered.read_text(encoding="ascii")
        if len(known) == hashlib.sha256().digest_size * 2:
            return known
    except (OSError, ValueError):
        pass
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        files.write_atomically(remembered, found.encode())
    return found
