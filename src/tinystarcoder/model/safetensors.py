"""One safetensors file: its header checked, its tensors memory-mapped as numpy arrays.

Read and written by hand because the ``safetensors`` library's numpy side knows
no bfloat16, tells no offsets to map, and its errors often do not name the
tensor; the tests hold this reader to accept what the library accepts. It gives
up every dtype but the three that language models are stored in (a tensor of
another dtype may lie in a file as long as nobody asks for its numbers).

Format: 8 bytes of header length, little-endian; a JSON object of name ->
{dtype, shape, data_offsets}; then the tensors' bytes, without gaps or overlaps.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError

# The library's own limit; a longer header is a damaged length, not a model.
MAX_HEADER_BYTES = 100_000_000

_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_CODES = {name: code for code, name in DTYPES.items()}

# Numbers converted at a time on writing, so that a large tensor needs no second copy.
_PIECE = 1 << 22


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: bytes ``begin`` to ``end`` of ``path``."""

    path: Path
    name: str
    code: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def dtype(self) -> str:
        """``float32``, ``bfloat16`` or ``float16``; another format's own code as it is."""
        return DTYPES.get(self.code, self.code)

    def bytes(self) -> npt.NDArray[np.uint8]:
        """The stored bytes, memory-mapped: nothing is read before it is used."""
        if self.begin == self.end:
            return np.empty(0, np.uint8)
        size = self.end - self.begin
        return np.memmap(self.path, np.uint8, mode="r", offset=self.begin, shape=(size,))

    def floats(self) -> npt.NDArray[np.float32]:
        """The numbers as float32, read-only and mapped where they are stored so."""
        raw = self.bytes()
        if self.code == "F32":
            numbers = raw.view("<f4")
            # A file may lie at odd offsets, where no BLAS would take its numbers.
            exact = numbers if numbers.flags.aligned else numbers.copy()
            return exact.astype(np.float32, copy=False).reshape(self.shape)
        if self.code == "F16":
            return raw.view("<f2").astype(np.float32).reshape(self.shape)
        if self.code == "BF16":
            wide = raw.view("<u2").astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32).reshape(self.shape)
        raise CheckpointError(
            f"{self.path}: tensor {self.name} is stored as {self.code}; "
            f"supported are {', '.join(DTYPES.values())}"
        )


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name, each checked to lie whole inside it.

    Raises CheckpointError for a file that is truncated or no safetensors.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            start, header = _parse(stream, size)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from error
    tensors = [_entry(path, name, value, start) for name, value in header.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    at = start
    for tensor in tensors:
        if tensor.begin != at:
            problem = "overlaps the tensor before it" if tensor.begin < at else "follows a gap"
            raise CheckpointError(f"{path}: damaged header: tensor {tensor.name} {problem}")
        if tensor.end > size:
            raise CheckpointError(
                f"{path}: truncated: tensor {tensor.name} ends at byte {tensor.end}, "
                f"the file at {size}; fetch or copy it again"
            )
        at = tensor.end
    if at != size:
        raise CheckpointError(f"{path}: {size - at} bytes follow its last tensor")
    return {tensor.name: tensor for tensor in tensors}


def _parse(stream: IO[bytes], size: int) -> tuple[int, dict[str, Any]]:
    """Where the tensors' bytes start, and the header without its metadata."""
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise ValueError(f"truncated: {size} bytes hold no header")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES or 8 + length > size:
        raise ValueError(f"truncated, or not safetensors: a header of {length} bytes in {size}")
    header = json.loads(stream.read(length).decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    header.pop("__metadata__", None)
    return 8 + length, header


def _entry(path: Path, name: str, value: Any, start: int) -> StoredTensor:
    def damaged(problem: str) -> CheckpointError:
        return CheckpointError(f"{path}: damaged header: tensor {name} {problem}")

    if not isinstance(value, dict):
        raise damaged("has no description")
    code, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(code, str) or code not in _BITS:
        raise damaged(f"has the unknown dtype {code!r}")
    if not _are_sizes(shape):
        raise damaged(f"has the impossible shape {shape!r}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged(f"has the impossible offsets {offsets!r}")
    begin, end = offsets
    if math.prod(shape) * _BITS[code] != 8 * (end - begin):
        raise damaged(f"of shape {shape} and dtype {code} does not fill its {end - begin} bytes")
    return StoredTensor(path, name, code, tuple(shape), start + begin, start + end)


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def write(
    stream: IO[bytes],
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, npt.NDArray[np.float32]],
    dtype: str,
) -> None:
    """Writes one file with the tensors named by ``shapes``, asking for one at a time.

    Raises CheckpointError for a wrong shape and a number that the dtype cannot hold.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * itemsize(dtype)
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # So that the numbers lie aligned in a map.
    stream.write(struct.pack("<Q", len(text)) + text)
    for name, shape in shapes.items():
        array = tensors[name]
        if array.shape != shape:
            raise CheckpointError(f"tensor {name} has shape {array.shape}, expected {shape}")
        numbers = np.ascontiguousarray(array, np.float32).reshape(-1)
        for begin in range(0, len(numbers), _PIECE):
            piece = numbers[begin : begin + _PIECE]
            narrow = _NARROW[dtype](piece)
            if dtype == "float16" and np.any(np.isinf(narrow) & np.isfinite(piece)):
                raise CheckpointError(
                    f"tensor {name} holds a number beyond float16's 65504; store bfloat16"
                )
            stream.write(narrow.data)


def itemsize(dtype: str) -> int:
    """Bytes of one stored number."""
    return _BITS[_CODES[dtype]] // 8


def _float32(numbers: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    return numbers.astype("<f4", copy=False)


def _float16(numbers: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        return numbers.astype("<f2")


def _bfloat16(numbers: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = numbers.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could carry a NaN's mantissa over into the sign.
    return np.where(np.isnan(numbers), (bits >> 16) | 0x40, rounded).astype("<u2")


_NARROW: dict[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]] = {
    "float32": _float32,
    "float16": _float16,
    "bfloat16": _bfloat16,
}
