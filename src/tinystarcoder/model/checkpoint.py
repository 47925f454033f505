"""Hugging Face folders <-> numpy arrays: ``config.json`` and safetensors, one file or many.

Nothing is read before it is asked for: a tensor is a memory map, so a 15B
model can be quantized tensor by tensor on a laptop. Every name, shape and
dtype is checked on opening, from the headers alone. It gives up pickled
weights (they can run code) and weights under other names than GPTBigCode's.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import files
from ..errors import CheckpointError, UnsafeCheckpointError, UnsupportedArchitectureError
from . import safetensors
from .config import ModelConfig
from .safetensors import StoredTensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_PREFIX = "transformer."
_HEAD, _EMBEDDING = "lm_head.weight", "transformer.wte.weight"
# Causal masks that old transformers versions stored with the weights.
_BUFFERS = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SHARDS = "model-*-of-*.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """An opened folder. ``names`` are those of ``config.shapes()``; lm_head is wte."""

    folder: Path
    config: ModelConfig
    _tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, folder: str | Path) -> "Checkpoint":
        """Checks a folder's config, headers, names, shapes and dtypes; reads no weights.

        Raises UnsupportedArchitectureError for another architecture (an output
        layer of its own included), UnsafeCheckpointError where only pickled
        weights lie, and CheckpointError for whatever is missing or damaged.
        """
        folder = Path(folder)
        config, values = _read_config(folder)
        tensors = _stored(folder)
        _check_head(folder, tensors, tied=values.get("tie_word_embeddings", True) is not False)
        tensors.pop(_HEAD, None)
        _check(folder, config, tensors)
        return cls(folder, config, {name: tensors[name] for name in config.shapes()})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the weights, in order."""
        return tuple(sorted({tensor.path for tensor in self._tensors.values()}))

    def dtype(self, name: str) -> str:
        """How the tensor is stored: ``float32``, ``bfloat16`` or ``float16``."""
        return self._tensors[name].dtype

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as float32, ``[out, in]``: read-only, or a fresh array where converted."""
        return self._tensors[name].floats()


def write(
    folder: str | Path,
    config: ModelConfig,
    tensors: Mapping[str, npt.NDArray[np.float32]],
    dtype: str = "float32",
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes a folder that ``transformers`` loads; ``tensors`` has the names of ``shapes()``.

    A tensor is asked for when its turn comes, so a lazy mapping works. All
    files are written aside first: an error leaves the folder as it was. An
    earlier checkpoint there is replaced; while its files change places, the
    folder has no ``config.json``, so that a mixture never passes for a model.
    """
    folder = Path(folder)
    shapes = config.shapes()
    if dtype not in safetensors.DTYPES.values():
        choices = ", ".join(safetensors.DTYPES.values())
        raise CheckpointError(f"{folder}: not written: dtype {dtype!r}; choose from {choices}")
    if wrong := set(shapes) ^ set(tensors):
        name = min(wrong)
        problem = "is missing" if name in shapes else "does not belong to this configuration"
        raise CheckpointError(f"{folder}: not written: tensor {name} {problem}")
    shards = _shards(shapes, dtype, max_shard_bytes)
    documents = {CONFIG: {**config.to_dict(), "dtype": dtype}}
    documents["generation_config.json"] = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
    }
    if len(shards) > 1:
        documents[INDEX] = _index(shards, dtype)
    try:
        with ExitStack() as stack:
            # Files take their places in reverse, config.json last.
            for name, document in documents.items():
                stream = stack.enter_context(files.atomic_file(folder / name))
                stream.write((json.dumps(document, indent=2) + "\n").encode())
            for shard, chosen in shards.items():
                stream = stack.enter_context(files.atomic_file(folder / shard))
                safetensors.write(stream, chosen, tensors, dtype)
            _remove_old(folder, kept={*documents, *shards})
    except (OSError, CheckpointError) as error:
        raise CheckpointError(f"{folder}: not written: {error}") from error


def _read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    path = folder / CONFIG
    if not folder.is_dir():
        if folder.is_file() and any(folder.match(pattern) for pattern in _PICKLES):
            raise _unsafe(folder, folder.parent)
        raise CheckpointError(f"{folder}: no such folder; a checkpoint is a folder with {CONFIG}")
    if not path.exists():
        raise CheckpointError(f"{path}: missing: no checkpoint, or one whose writing was cut short")
    values = _read_json(path)
    try:
        return ModelConfig.from_dict(values), values
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return values


def _unsafe(path: Path, folder: Path) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f"{path}: pickled weights can run code and are never opened; convert them where you trust "
        f"them, under transformers: AutoModelForCausalLM.from_pretrained({str(folder)!r})"
        ".save_pretrained(OUT)"
    )


def _stored(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor in the folder's weight files, under its full name, masks left out."""
    if (folder / WEIGHTS).exists():
        found = safetensors.read_header(folder / WEIGHTS)
    elif (folder / INDEX).exists():
        found = _sharded(folder)
    elif pickles := sorted(path for pattern in _PICKLES for path in folder.glob(pattern)):
        raise _unsafe(pickles[0], folder)
    else:
        raise CheckpointError(f"{folder / WEIGHTS}: missing, and so is {INDEX}: no weights here")
    found = {name: tensor for name, tensor in found.items() if not _BUFFERS.fullmatch(name)}
    # Saved from the base model, without its output layer, names have no prefix.
    if not any(name.startswith(_PREFIX) for name in found):
        return {name if name == _HEAD else _PREFIX + name: found[name] for name in found}
    return found


def _sharded(folder: Path) -> dict[str, StoredTensor]:
    path = folder / INDEX
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{path}: has no weight_map")
    headers: dict[str, dict[str, StoredTensor]] = {}
    found: dict[str, StoredTensor] = {}
    for name, shard in weight_map.items():
        # A shard lies beside its index: a path would reach out of the folder.
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise CheckpointError(f"{path}: tensor {name} has the impossible file name {shard!r}")
        if not (folder / shard).is_file():
            raise CheckpointError(
                f"{folder / shard}: missing shard; {INDEX} expects tensor {name} in it"
            )
        if shard not in headers:
            headers[shard] = safetensors.read_header(folder / shard)
        if name not in headers[shard]:
            raise CheckpointError(f"{folder / shard}: tensor {name} is missing; {INDEX} expects it")
        found[name] = headers[shard][name]
    for shard, header in headers.items():
        for name in header:
            if weight_map.get(name) != shard:
                raise CheckpointError(f"{folder / shard}: tensor {name} is not in {INDEX}")
    return found


def _check_head(folder: Path, tensors: Mapping[str, StoredTensor], tied: bool) -> None:
    """A stored lm_head must be wte again: GPTBigCode here has one matrix for both."""
    head, embedding = tensors.get(_HEAD), tensors.get(_EMBEDDING)
    if head is None:
        if not tied:
            raise CheckpointError(
                f"{folder}: tensor {_HEAD} is missing; {CONFIG} says it is untied"
            )
        return
    if embedding is None:
        return
    same = head.shape == embedding.shape and (
        np.array_equal(head.bytes(), embedding.bytes())
        if head.code == embedding.code
        else np.array_equal(head.floats(), embedding.floats(), equal_nan=True)
    )
    if not same:
        raise UnsupportedArchitectureError(
            f"{head.path}: tensor {_HEAD} differs from {_EMBEDDING}; "
            "an output layer of its own is not supported"
        )


def _check(folder: Path, config: ModelConfig, tensors: Mapping[str, StoredTensor]) -> None:
    shapes = config.shapes()
    for name, tensor in tensors.items():
        if name not in shapes:
            raise CheckpointError(f"{tensor.path}: unknown tensor {name}")
        if tensor.shape != shapes[name]:
            raise CheckpointError(
                f"{tensor.path}: tensor {name} has shape {list(tensor.shape)}; "
                f"{CONFIG} asks for {list(shapes[name])}"
            )
        if tensor.dtype not in safetensors.DTYPES.values():
            raise CheckpointError(
                f"{tensor.path}: tensor {name} is stored as {tensor.dtype}; "
                f"supported are {', '.join(safetensors.DTYPES.values())}"
            )
    for name in shapes:
        if name not in tensors:
            raise CheckpointError(f"{folder}: tensor {name} is missing")


def _shards(
    shapes: Mapping[str, tuple[int, ...]], dtype: str, limit: int
) -> dict[str, dict[str, tuple[int, ...]]]:
    """File name -> the tensors in it, in order; a tensor above the limit has its own file."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in shapes.items():
        more = math.prod(shape) * safetensors.itemsize(dtype)
        if groups[-1] and size + more > limit:
            groups.append({})
            size = 0
        groups[-1][name] = shape
        size += more
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    total = len(groups)
    return {
        f"model-{number:05}-of-{total:05}.safetensors": group
        for number, group in enumerate(groups, start=1)
    }


def _index(shards: Mapping[str, Mapping[str, tuple[int, ...]]], dtype: str) -> dict[str, Any]:
    shapes = [shape for group in shards.values() for shape in group.values()]
    size = sum(math.prod(shape) for shape in shapes) * safetensors.itemsize(dtype)
    return {
        "metadata": {"total_size": size},
        "weight_map": {name: shard for shard, group in shards.items() for name in group},
    }


def _remove_old(folder: Path, kept: set[str]) -> None:
    (folder / CONFIG).unlink(missing_ok=True)
    for old in (folder / WEIGHTS, folder / INDEX, *folder.glob(_SHARDS)):
        if old.name not in kept:
            old.unlink(missing_ok=True)
