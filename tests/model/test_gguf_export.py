"""GGUF: what is in the file, by the gguf package's own reader, and what llama.cpp makes of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.generation.generate import generate_ids, new_slot
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.model import checkpoint
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.model.gguf_export import WeightType, export
from tinystarcoder.pretrained import locate
from tinystarcoder.tokenizer import Tokenizer

# Largest error of a weight by the type it is stored in, for weights of about 0.2 to 1.
ERRORS: dict[WeightType, float] = {"f32": 0.0, "f16": 1e-3, "q8_0": 5e-3, "q4_0": 0.15}


def written(folder: Path, output: Path, weights: WeightType) -> gguf.GGUFReader:
    export(folder, output, weights)
    return gguf.GGUFReader(output)


@pytest.mark.parametrize("weights", ERRORS)
def test_every_tensor_is_there(tiny_checkpoint: Path, tmp_path: Path, weights: WeightType) -> None:
    model = Checkpoint.open(tiny_checkpoint)
    reader = written(tiny_checkpoint, tmp_path / "model.gguf", weights)
    found = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    assert len(found) == len(model.names)
    for name, stored in (
        ("transformer.wte.weight", "token_embd.weight"),
        ("transformer.wpe.weight", "position_embd.weight"),
        ("transformer.h.1.attn.c_attn.weight", "blk.1.attn_qkv.weight"),
        ("transformer.h.0.mlp.c_proj.bias", "blk.0.ffn_down.bias"),
        ("transformer.ln_f.weight", "output_norm.weight"),
    ):
        difference = np.abs(found[stored] - model.tensor(name)).max()
        assert difference <= ERRORS[weights], stored


def test_the_vocabulary(tiny_checkpoint: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    fields = written(tiny_checkpoint, tmp_path / "model.gguf", "f32").fields

    def value(key: str) -> Any:
        return fields[f"tokenizer.ggml.{key}"].contents()

    vocabulary = json.loads((tiny_checkpoint / "tokenizer.json").read_text())["model"]["vocab"]
    assert all(value("tokens")[i] == token for token, i in vocabulary.items())
    assert {i for i, kind in enumerate(value("token_type")) if kind == gguf.TokenType.CONTROL} == (
        tokenizer.special_ids
    )
    assert tokenizer.fim is not None
    assert (value("fim_pre_token_id"), value("fim_mid_token_id")) == (1, 2)
    assert (value("fim_suf_token_id"), value("fim_pad_token_id")) == (3, 4)
    assert (value("model"), value("pre"), value("eos_token_id")) == ("gpt2", "refact", 0)


def test_a_vocabulary_in_two_files(
    tiny_checkpoint: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """vocab.json and merges.txt, as older folders have them, are the same vocabulary."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_checkpoint / name).read_bytes())
    parts = json.loads(tokenizer.to_json())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in parts["merges"]]
    (folder / "vocab.json").write_text(json.dumps(parts["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    export(tiny_checkpoint, tmp_path / "one.gguf", "f32")
    export(folder, tmp_path / "two.gguf", "f32")
    assert (tmp_path / "two.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()


def test_heads_are_sorted_apart(
    tmp_path: Path,
    tokenizer: Tokenizer,
    tiny_config: ModelConfig,
    random_tensors: Callable[..., dict[str, np.ndarray]],
) -> None:
    """Without multi-query a checkpoint has q, k, v of each head in turn; llama.cpp has not."""
    config = replace(tiny_config, multi_query=False)
    tensors = random_tensors(config)
    checkpoint.write(tmp_path / "model", config, tensors)
    tokenizer.save(tmp_path / "model")
    reader = written(tmp_path / "model", tmp_path / "model.gguf", "f32")
    (found,) = (t.data for t in reader.tensors if t.name == "blk.0.attn_qkv.weight")
    rows = tensors["transformer.h.0.attn.c_attn.weight"]
    width, head = config.n_embd, config.head_dim
    np.testing.assert_array_equal(found[:head], rows[:head])  # The first head's query.
    np.testing.assert_array_equal(found[head : 2 * head], rows[3 * head : 4 * head])
    np.testing.assert_array_equal(found[width : width + head], rows[head : 2 * head])


def test_an_error_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    with pytest.raises(KeyError):
        export(tiny_checkpoint, output, "q9")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_llama_cpp_writes_the_same_text(tmp_path: Path) -> None:
    """nano, token for token, and its tokenizer too."""
    llama_cpp = pytest.importorskip(
        "llama_cpp", reason="llama-cpp-python builds from source, in minutes: pip install it"
    )
    folder = locate("nano")
    export(folder, tmp_path / "nano.gguf", "f32")
    llama = llama_cpp.Llama(
        str(tmp_path / "nano.gguf"), n_ctx=512, n_threads=1, verbose=False, logits_all=False
    )
    tokenizer, decoder = Tokenizer.from_folder(folder), NumpyDecoder(Checkpoint.open(folder))
    for text in (
        "import os\n\n\ndef list_files(path):\n    ",
        "class Stack:\n",
        "x = 12345 # é 世界",
    ):
        ids = tokenizer.encode(text)
        assert llama.tokenize(text.encode(), add_bos=False) == ids
        with new_slot(decoder) as slot:
            ours = [t.id for t in generate_ids(decoder, slot, ids, SamplingOptions(max_tokens=48))]
        llama.reset()
        llama.eval(ids)
        theirs = []
        while len(theirs) < len(ours):
            theirs.append(llama.sample(temp=0.0))
            llama.eval(theirs[-1:])
        assert theirs == ours
