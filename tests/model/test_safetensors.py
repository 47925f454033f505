"""The file format, against the safetensors library."""

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tinystarcoder.errors import CheckpointError
from tinystarcoder.model.safetensors import read_header, write


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples of a property."""
    return tmp_path_factory.mktemp("safetensors") / "some.safetensors"


def as_file(header: Any, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def written(tensors: dict[str, np.ndarray], dtype: str) -> bytes:
    stream = io.BytesIO()
    write(stream, {name: array.shape for name, array in tensors.items()}, tensors, dtype)
    return stream.getvalue()


# Upper halves at the edges (zeros, subnormals, infinities, NaNs) and lower halves around a tie.
UPPER = st.sampled_from([0, 1, 0x7F, 0x80, 0x3F80, 0x3F81, 0x7F7F, 0x7F80, 0x7F81, 0x7FFF])
LOWER = st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])


@given(
    bits=st.lists(
        st.tuples(st.sampled_from([0, 0x8000]), UPPER | st.integers(0, 0x7FFF), LOWER).map(
            lambda parts: (parts[0] | parts[1]) << 16 | parts[2]
        )
        | st.integers(0, 2**32 - 1)
    )
)
def test_bfloat16_is_rounded_as_torch_does(bits: list[int]) -> None:
    """Any 32 bits: ties, subnormals, infinities and NaNs, in the library's reading too."""
    numbers = np.array(bits, np.uint32).view(np.float32)
    stored = safetensors.torch.load(written({"x": numbers}, "bfloat16"))["x"]
    expected = torch.from_numpy(numbers.copy()).to(torch.bfloat16)
    assert torch.equal(stored.isnan(), expected.isnan())
    known = ~expected.isnan()
    assert torch.equal(stored[known].view(torch.int16), expected[known].view(torch.int16))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@given(numbers=arrays.arrays(np.float32, (3, 5), elements=st.floats(-60000, 60000, width=32)))
def test_what_is_written_is_read(path: Path, dtype: str, numbers: np.ndarray) -> None:
    tensors = {"x": numbers, "empty": np.empty((0, 4), np.float32), "scalar": numbers[0, 0]}
    path.write_bytes(written({k: np.asarray(v) for k, v in tensors.items()}, dtype))
    header = read_header(path)
    for name, reference in safetensors.torch.load_file(path).items():
        assert header[name].dtype == dtype == str(reference.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(header[name].floats(), reference.float().numpy())
    with safetensors.safe_open(path, framework="pt") as reader:
        assert reader.metadata() == {"format": "pt"}


def test_float16_does_not_turn_numbers_into_infinities() -> None:
    written({"fine": np.array([np.inf, 65504], np.float32)}, "float16")
    with pytest.raises(CheckpointError, match="tensor big holds a number beyond float16"):
        written({"big": np.array([1.0, 1e5], np.float32)}, "float16")


def test_numbers_at_an_odd_offset_come_aligned(path: Path) -> None:
    header = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    for padding in range(4):
        path.write_bytes(as_file(text + b" " * padding, struct.pack("<2f", 1.5, -2.0)))
        numbers = read_header(path)["x"].floats()
        assert numbers.flags.aligned
        assert numbers.tolist() == [1.5, -2.0]


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Sound files, and files with a number or two that are off."""
    sizes = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I64": 8}
    header: dict[str, Any] = {}
    at = 0
    off = st.sampled_from([0] * 60 + [-8, -1, 1, 4, 2**40, -(2**70)])
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=3)):
        code = draw(st.sampled_from([*sizes, "F99"] if draw(off) else [*sizes]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        end = at + math.prod(shape) * sizes.get(code, 4)
        offsets = [at + draw(off), end + draw(off)]
        header[name] = {"dtype": code, "shape": [n + draw(off) for n in shape]}
        header[name]["data_offsets"] = offsets
        if draw(off):
            del header[name][draw(st.sampled_from(["dtype", "shape", "data_offsets"]))]
        at = end
    if draw(st.booleans()):
        header["__metadata__"] = {"format": "pt"}
    size = max(0, at + max(-8, min(draw(off), 8)))
    items = draw(st.permutations(list(header.items())))
    return as_file(dict(items), bytes(size))


@settings(max_examples=400)
@given(data=files())
def test_accepts_what_the_library_accepts(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        with safetensors.safe_open(path, framework="np") as reader:
            expected = {name: reader.get_slice(name).get_shape() for name in reader.keys()}  # noqa: SIM118
    except safetensors.SafetensorError:
        with pytest.raises(CheckpointError, match=str(path)):
            read_header(path)
    else:
        found = {name: list(tensor.shape) for name, tensor in read_header(path).items()}
        assert found == expected


@given(data=st.binary(max_size=40) | st.binary(max_size=40).map(lambda text: as_file(text, b"")))
def test_nonsense_is_a_checkpoint_error(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        read_header(path)
    except CheckpointError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("code", [[], {}, None, 7])
def test_a_dtype_that_is_no_name_is_a_checkpoint_error(path: Path, code: Any) -> None:
    path.write_bytes(as_file({"x": {"dtype": code, "shape": [], "data_offsets": [0, 0]}}, b""))
    with pytest.raises(CheckpointError, match="tensor x has the unknown dtype"):
        read_header(path)


def test_deeply_nested_nonsense_is_a_checkpoint_error(path: Path) -> None:
    path.write_bytes(as_file(b"[" * 100_000, b""))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_header(path)
