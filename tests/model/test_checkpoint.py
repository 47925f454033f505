"""Checkpoint folders: both ways with transformers, and every way in which one can be broken."""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, GPTBigCodeForCausalLM

from tinystarcoder.errors import (
    CheckpointError,
    UnsafeCheckpointError,
    UnsupportedArchitectureError,
)
from tinystarcoder.model import checkpoint
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig

Tensors = dict[str, np.ndarray]

DTYPES = ("float32", "bfloat16", "float16")
WTE, LN_F = "transformer.wte.weight", "transformer.ln_f.weight"


@pytest.fixture
def tensors(tiny_config: ModelConfig, random_tensors: Callable[..., Tensors]) -> Tensors:
    return random_tensors(tiny_config)


@pytest.fixture
def folder(tmp_path: Path, tiny_config: ModelConfig, tensors: Tensors) -> Path:
    """A sound checkpoint in one file, for tests to break."""
    checkpoint.write(tmp_path / "model", tiny_config, tensors)
    return tmp_path / "model"


@pytest.fixture
def sharded(tmp_path: Path, tiny_config: ModelConfig, tensors: Tensors) -> Path:
    checkpoint.write(tmp_path / "model", tiny_config, tensors, max_shard_bytes=30_000)
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 2
    return tmp_path / "model"


def as_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    return torch.from_numpy(array).to(getattr(torch, dtype)).float().numpy()


@pytest.mark.parametrize("limit", [10**9, 30_000], ids=["one file", "sharded"])
@pytest.mark.parametrize("dtype", DTYPES)
class TestBothWays:
    def test_written_here_loads_there_and_here(
        self, tmp_path: Path, tiny_config: ModelConfig, tensors: Tensors, dtype: str, limit: int
    ) -> None:
        checkpoint.write(tmp_path, tiny_config, tensors, dtype, limit)
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert isinstance(model, GPTBigCodeForCausalLM)
        assert model.dtype == getattr(torch, dtype)
        assert model.generation_config.eos_token_id == tiny_config.eos_token_id
        state = model.state_dict()
        opened = Checkpoint.open(tmp_path)
        assert opened.config == tiny_config
        assert opened.names == tuple(tiny_config.shapes())
        for name, array in tensors.items():
            assert opened.dtype(name) == dtype
            np.testing.assert_array_equal(opened.tensor(name), as_stored(array, dtype))
            np.testing.assert_array_equal(opened.tensor(name), state[name].float().numpy())

    @pytest.mark.parametrize("base", [False, True], ids=["whole", "base model"])
    def test_written_there_loads_here(
        self,
        tmp_path: Path,
        tiny_config: ModelConfig,
        tensors: Tensors,
        dtype: str,
        limit: int,
        base: bool,
    ) -> None:
        checkpoint.write(tmp_path / "ours", tiny_config, tensors, dtype)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
        saved = model.transformer if base else model
        saved.save_pretrained(tmp_path / "theirs", max_shard_size=limit)
        opened = Checkpoint.open(tmp_path / "theirs")
        assert opened.config == tiny_config
        for name, array in tensors.items():
            np.testing.assert_array_equal(opened.tensor(name), as_stored(array, dtype))


def restore(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Rewrites the weight file with changed tensors."""
    path = folder / "model.safetensors"
    stored = dict(safetensors.torch.load_file(path))
    change(stored)
    safetensors.torch.save_file(stored, path)


def test_lm_head_may_be_present(folder: Path, tensors: Tensors) -> None:
    restore(folder, lambda stored: stored.update({"lm_head.weight": stored[WTE].clone()}))
    opened = Checkpoint.open(folder)
    assert "lm_head.weight" not in opened.names
    np.testing.assert_array_equal(opened.tensor(WTE), tensors[WTE])


def test_lm_head_may_be_stored_in_another_dtype_only_if_equal(folder: Path) -> None:
    restore(folder, lambda stored: stored.update({"lm_head.weight": stored[WTE].half()}))
    with pytest.raises(UnsupportedArchitectureError, match=r"lm_head\.weight differs"):
        Checkpoint.open(folder)

    def ones(stored: dict[str, torch.Tensor]) -> None:
        shape = stored[WTE].shape
        stored[WTE] = torch.ones(shape)
        stored["lm_head.weight"] = torch.ones(shape).half()

    restore(folder, ones)
    Checkpoint.open(folder)


def test_masks_of_old_files_are_ignored(folder: Path) -> None:
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool).tril(),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    restore(folder, lambda stored: stored.update(masks))
    assert not set(masks) & set(Checkpoint.open(folder).names)


def test_nan_is_a_number_like_others(folder: Path) -> None:
    def spoil(stored: dict[str, torch.Tensor]) -> None:
        stored[WTE][0, 0] = torch.nan
        stored["lm_head.weight"] = stored[WTE].clone()

    restore(folder, spoil)
    assert np.isnan(Checkpoint.open(folder).tensor(WTE)[0, 0])


def test_a_tensor_is_a_map_of_the_file(folder: Path) -> None:
    array: Any = Checkpoint.open(folder).tensor(WTE)
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable


# Each way to break a folder: what is done to it, the error, and what the error names.


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        values = {key: value for key, value in {**values, **changes}.items() if value != "gone"}
        (folder / name).write_text(json.dumps(values))

    return edit


def edit_header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return edit


def edit_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    return lambda folder: restore(folder, change)


def edit_index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))

    return edit


def write_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def rename_weights(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


SHAPE = r"tensor transformer\.ln_f\.weight has shape \[33\]; config\.json asks for \[32\]"
ORDER = r"model\.safetensors: damaged header: tensor transformer\.wpe\.weight"

BROKEN: dict[str, tuple[Callable[[Path], None], type[CheckpointError], str]] = {
    "no config": (remove("config.json"), CheckpointError, r"config\.json: missing"),
    "config is no JSON": (
        write_text("config.json", "{"),
        CheckpointError,
        r"config\.json: cannot be read as JSON",
    ),
    "config is a list": (
        write_text("config.json", "[]"),
        CheckpointError,
        r"config\.json: not a JSON object",
    ),
    "another architecture": (
        edit_json("config.json", model_type="llama"),
        UnsupportedArchitectureError,
        r"config\.json: .*model_type 'llama' is not supported",
    ),
    "another activation": (
        edit_json("config.json", activation_function="relu"),
        UnsupportedArchitectureError,
        r"config\.json: .*'relu' is not supported",
    ),
    "unscaled attention": (
        edit_json("config.json", scale_attn_weights=False),
        UnsupportedArchitectureError,
        r"config\.json: .*scale_attn_weights",
    ),
    "config without heads": (
        edit_json("config.json", n_head="gone"),
        CheckpointError,
        r"config\.json: .*n_head is missing",
    ),
    "config with words for numbers": (
        edit_json("config.json", n_embd="wide", n_inner=None),
        CheckpointError,
        r"config\.json: .*n_embd must be a positive integer, not 'wide'",
    ),
    "config with a word for yes": (
        edit_json("config.json", multi_query="yes"),
        CheckpointError,
        r"config\.json: .*multi_query must be true or false, not 'yes'",
    ),
    "width and heads disagree": (
        edit_json("config.json", n_head=3),
        CheckpointError,
        r"config\.json: .*n_embd 32 is not a multiple of n_head 3",
    ),
    "config of a larger model": (
        edit_json("config.json", n_layer=3),
        CheckpointError,
        r"model: tensor transformer\.h\.2\.ln_1\.weight is missing",
    ),
    "untied, without a head": (
        edit_json("config.json", tie_word_embeddings=False),
        CheckpointError,
        r"tensor lm_head\.weight is missing",
    ),
    "no weights": (
        remove("model.safetensors"),
        CheckpointError,
        r"model\.safetensors: missing.*no weights",
    ),
    "pickled weights": (
        rename_weights("pytorch_model.bin"),
        UnsafeCheckpointError,
        r"pytorch_model\.bin: pickled.*from_pretrained\('.*model'\)\.save_pretrained\(OUT\)",
    ),
    "empty file": (
        edit_bytes(lambda data: b""),
        CheckpointError,
        r"model\.safetensors: .*truncated: 0 bytes",
    ),
    "truncated in the header": (
        edit_bytes(lambda data: data[:100]),
        CheckpointError,
        r"model\.safetensors: .*truncated.* in 100",
    ),
    "truncated in the numbers": (
        edit_bytes(lambda data: data[:-1]),
        CheckpointError,
        r"model\.safetensors: truncated: tensor transformer\.ln_f\.bias ends at byte",
    ),
    "trailing bytes": (
        edit_bytes(lambda data: data + b"xyz"),
        CheckpointError,
        r"model\.safetensors: 3 bytes follow",
    ),
    "huge header": (
        edit_bytes(lambda data: struct.pack("<Q", 2**62) + data[8:]),
        CheckpointError,
        r"model\.safetensors: .*a header of 4611686018427387904 bytes",
    ),
    "header is no JSON": (
        edit_bytes(lambda data: data[:8] + b"x" + data[9:]),
        CheckpointError,
        r"model\.safetensors: cannot be read as safetensors: Expecting value",
    ),
    "a web page": (
        edit_bytes(lambda data: b"<!DOCTYPE html><html>Not found</html>"),
        CheckpointError,
        r"model\.safetensors: .*not safetensors",
    ),
    "tensors overlap": (
        edit_header(
            lambda header: header["transformer.wpe.weight"].update(data_offsets=[4, 16388])
        ),
        CheckpointError,
        ORDER + " overlaps",
    ),
    "negative offset": (
        edit_header(
            lambda header: header["transformer.wpe.weight"].update(data_offsets=[-4, 16380])
        ),
        CheckpointError,
        ORDER + r" has the impossible offsets \[-4, 16380\]",
    ),
    "negative size": (
        edit_header(lambda header: header["transformer.wpe.weight"].update(shape=[-128, -32])),
        CheckpointError,
        ORDER + r" has the impossible shape",
    ),
    "size and shape disagree": (
        edit_header(lambda header: header["transformer.wpe.weight"].update(shape=[128, 31])),
        CheckpointError,
        ORDER + r" of shape \[128, 31\] and dtype F32 does not fill its 16384 bytes",
    ),
    "unheard-of dtype": (
        edit_header(lambda header: header["transformer.wpe.weight"].update(dtype="F31")),
        CheckpointError,
        ORDER + r" has the unknown dtype 'F31'",
    ),
    "wrong shape": (
        edit_tensors(lambda stored: stored.update({LN_F: torch.ones(33)})),
        CheckpointError,
        r"model\.safetensors: " + SHAPE,
    ),
    "wrong dtype": (
        edit_tensors(lambda stored: stored.update({LN_F: torch.ones(32, dtype=torch.float64)})),
        CheckpointError,
        r"model\.safetensors: tensor transformer\.ln_f\.weight is stored as F64; supported are",
    ),
    "missing tensor": (
        edit_tensors(lambda stored: stored.pop(LN_F)),
        CheckpointError,
        r"model: tensor transformer\.ln_f\.weight is missing",
    ),
    "unknown tensor": (
        edit_tensors(lambda stored: stored.update({"transformer.h.7.x": torch.ones(1)})),
        CheckpointError,
        r"model\.safetensors: unknown tensor transformer\.h\.7\.x",
    ),
    "output layer of its own": (
        edit_tensors(lambda stored: stored.update({"lm_head.weight": stored[WTE] + 1})),
        UnsupportedArchitectureError,
        r"model\.safetensors: tensor lm_head\.weight differs from transformer\.wte\.weight",
    ),
}

SECOND = "model-00002-of-00004.safetensors"

BROKEN_SHARDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing shard": (
        remove(SECOND),
        rf"{SECOND}: missing shard; model\.safetensors\.index\.json expects tensor transformer",
    ),
    "truncated shard": (
        lambda folder: (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-5]) and None,
        rf"{SECOND}: truncated: tensor transformer",
    ),
    "index is no JSON": (
        write_text("model.safetensors.index.json", "no"),
        r"model\.safetensors\.index\.json: cannot be read as JSON",
    ),
    "index without a map": (
        write_text("model.safetensors.index.json", "{}"),
        r"model\.safetensors\.index\.json: has no weight_map",
    ),
    "index reaches out": (
        edit_index(lambda files: files.update({LN_F: "../../etc/passwd"})),
        r"index\.json: tensor transformer\.ln_f\.weight has the impossible file name",
    ),
    "index names a number": (
        edit_index(lambda files: files.update({LN_F: 3})),  # type: ignore[dict-item]
        r"index\.json: tensor transformer\.ln_f\.weight has the impossible file name 3",
    ),
    "index expects more": (
        edit_index(lambda files: files.update({"transformer.more": SECOND})),
        rf"{SECOND}: tensor transformer\.more is missing",
    ),
    "index expects less": (
        edit_index(lambda files: files.pop(LN_F)),
        r"tensor transformer\.ln_f\.weight is not in model\.safetensors\.index\.json",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folder(folder: Path, case: str) -> None:
    damage, kind, message = BROKEN[case]
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.open(folder)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("case", BROKEN_SHARDS)
def test_broken_shards(sharded: Path, case: str) -> None:
    damage, message = BROKEN_SHARDS[case]
    damage(sharded)
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.open(sharded)
    assert str(sharded) in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        Checkpoint.open(tmp_path / "nowhere")


def test_a_pickle_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"\x80")
    with pytest.raises(UnsafeCheckpointError, match=r"weights\.pt: pickled"):
        Checkpoint.open(tmp_path / "weights.pt")


# Writing.


class Failing(dict[str, np.ndarray]):
    """Tensors, the last of which cannot be had."""

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "transformer.ln_f.bias":
            raise OSError("disk on fire")
        return super().__getitem__(name)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("limit", [10**9, 30_000])
def test_a_failed_write_leaves_what_was_there(
    folder: Path, tiny_config: ModelConfig, tensors: Tensors, limit: int
) -> None:
    before = listing(folder)
    with pytest.raises(CheckpointError, match="not written: disk on fire"):
        checkpoint.write(folder, tiny_config, Failing(tensors), max_shard_bytes=limit)
    assert listing(folder) == before


def test_an_interruption_between_files_is_seen(
    sharded: Path, tiny_config: ModelConfig, tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of several new files takes its place, then the process is gone."""
    replace = Path.replace
    done: list[Path] = []

    def once(path: Path, target: Path) -> Path:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", once)
    changed = {name: array + 1 for name, array in tensors.items()}
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(sharded, tiny_config, changed, max_shard_bytes=30_000)
    assert len(done) == 1
    with pytest.raises(CheckpointError, match="cut short"):
        Checkpoint.open(sharded)


def test_writing_over_shards_leaves_no_old_file(
    sharded: Path, tiny_config: ModelConfig, tensors: Tensors
) -> None:
    (sharded / "tokenizer.json").write_text("{}")
    checkpoint.write(sharded, tiny_config, tensors)
    names = {path.name for path in sharded.iterdir()}
    kept = {"tokenizer.json", "config.json", "generation_config.json", "model.safetensors"}
    assert names == kept


def test_tensors_are_asked_for_one_at_a_time(
    tmp_path: Path, tiny_config: ModelConfig, tensors: Tensors
) -> None:
    asked: list[str] = []

    class Lazy(Mapping[str, np.ndarray]):
        def __getitem__(self, name: str) -> np.ndarray:
            asked.append(name)
            return tensors[name]

        def __iter__(self) -> Iterator[str]:
            return iter(tensors)

        def __len__(self) -> int:
            return len(tensors)

    checkpoint.write(tmp_path, tiny_config, Lazy())
    assert asked == list(tiny_config.shapes())


def test_a_folder_can_be_converted_in_place(folder: Path, tiny_config: ModelConfig) -> None:
    """The maps of the old file stay good while the new one is written."""
    opened = Checkpoint.open(folder)
    old = {name: opened.tensor(name) for name in opened.names}
    checkpoint.write(folder, tiny_config, old, "bfloat16")
    for name, array in old.items():
        new = Checkpoint.open(folder).tensor(name)
        np.testing.assert_array_equal(new, as_stored(np.array(array), "bfloat16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(LN_F), r"tensor transformer\.ln_f\.weight is missing"),
        (lambda t: t.update(x=t[LN_F]), "tensor x does not belong to this configuration"),
        (
            lambda t: t.update({LN_F: t[LN_F][:5]}),
            r"ln_f\.weight has shape \(5,\), expected \(32,\)",
        ),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_what_is_not_a_model_is_not_written(
    tmp_path: Path,
    tiny_config: ModelConfig,
    tensors: Tensors,
    change: Callable[[Tensors], Any],
    message: str,
) -> None:
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.write(tmp_path / "new", tiny_config, tensors)
    assert not list((tmp_path / "new").glob("*"))


def test_an_unknown_dtype_is_not_written(
    tmp_path: Path, tiny_config: ModelConfig, tensors: Tensors
) -> None:
    with pytest.raises(CheckpointError, match="dtype 'int8'; choose from float32, bfloat16"):
        checkpoint.write(tmp_path, tiny_config, tensors, "int8")
