"""A checkpoint and its tokenizer as one GGUF file, which llama.cpp runs.

The architecture is llama.cpp's ``starcoder``; matrices are stored as asked,
norms, biases and positions in float32. Tensors are converted and written one
at a time, so that memory holds one of them. It gives up the way back (the
Hugging Face folder is the master), and what llama.cpp does not have: it
computes every GELU by the tanh approximation.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt

from ..files import sync_folder
from ..tokenizer import Tokenizer
from .checkpoint import Checkpoint
from .config import ModelConfig

WeightType = Literal["f32", "f16", "q8_0", "q4_0"]

_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def export(folder: Path, output: Path, weights: WeightType = "f16") -> None:
    """Writes the model in ``folder`` to ``output``, whole or not at all.

    A matrix whose rows are no multiple of 32, the block of a quantized type,
    is stored as f16. Raises what :meth:`~.checkpoint.Checkpoint.open` and
    :meth:`~..tokenizer.Tokenizer.from_folder` raise.
    """
    checkpoint, tokenizer = Checkpoint.open(folder), Tokenizer.from_folder(folder)
    config = checkpoint.config
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as aside:
        path = Path(aside) / output.name
        writer = gguf.GGUFWriter(path, "starcoder")
        _add_architecture(writer, config, folder.resolve().name, weights)
        _add_vocabulary(writer, tokenizer, config.vocab_size)
        kinds = {name: _type_of(name, shape, weights) for name, shape in config.shapes().items()}
        for name, shape in config.shapes().items():
            row = _stored(np.zeros((1, *shape[1:]), np.float32), kinds[name])
            stored = (shape[0], *row.shape[1:])
            size = row.itemsize * math.prod(stored)
            writer.add_tensor_info(_renamed(name), stored, row.dtype, size, kinds[name])
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, kind in kinds.items():
            writer.write_tensor_data(
                _stored(_arranged(name, checkpoint.tensor(name), config), kind)
            )
        writer.close()
        path.replace(output)
    sync_folder(output.parent)


def _add_architecture(
    writer: gguf.GGUFWriter, config: ModelConfig, name: str, weights: WeightType
) -> None:
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[weights])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer, size: int) -> None:
    """Ids by their spelling in GPT-2's alphabet; those that nobody uses are filled up."""
    backend = json.loads(tokenizer.to_json())
    spellings = {token_id: token for token, token_id in backend["model"]["vocab"].items()}
    spellings |= {token["id"]: token["content"] for token in backend["added_tokens"]}
    types = []
    for token_id in range(size):
        if token_id in tokenizer.special_ids:
            types.append(gguf.TokenType.CONTROL)
        elif token_id in spellings:
            types.append(gguf.TokenType.NORMAL)
        else:
            types.append(gguf.TokenType.UNUSED)
    merges = (m if isinstance(m, str) else " ".join(m) for m in backend["model"]["merges"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("refact")  # Digits alone, then GPT-2's pattern: StarCoder's.
    writer.add_token_list([spellings.get(i, f"[UNUSED_{i}]") for i in range(size)])
    writer.add_token_types(types)
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(tokenizer.eos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(False)
    for key, token_id in _sentinels(tokenizer):
        writer.add_uint32(f"tokenizer.ggml.fim_{key}_token_id", token_id)


def _sentinels(tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    tokens = tokenizer.fim
    if tokens is None:
        return
    yield from (("pre", tokens.prefix), ("suf", tokens.suffix), ("mid", tokens.middle))
    yield "pad", tokens.pad


def _renamed(name: str) -> str:
    """``transformer.h.3.ln_1.bias`` is ``blk.3.attn_norm.bias``."""
    module, _, kind = name.rpartition(".")
    prefix = ""
    if module.startswith("transformer.h."):
        layer, _, module = module.removeprefix("transformer.h.").partition(".")
        prefix = f"blk.{layer}."
    return f"{prefix}{_NAMES[module]}.{kind}"


def _type_of(name: str, shape: tuple[int, ...], weights: WeightType) -> gguf.GGMLQuantizationType:
    if len(shape) == 1 or name.startswith("transformer.wpe"):
        return gguf.GGMLQuantizationType.F32
    kind = gguf.GGMLQuantizationType[weights.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _stored(tensor: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType) -> npt.NDArray[Any]:
    return gguf.quants.quantize(tensor, kind)


def _arranged(
    name: str, tensor: npt.NDArray[np.float32], config: ModelConfig
) -> npt.NDArray[np.float32]:
    """llama.cpp has all queries, then all keys, then all values; so has multi-query."""
    if config.multi_query or ".attn.c_attn." not in name:
        return tensor
    heads = tensor.reshape(config.n_head, 3, config.head_dim, *tensor.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(tensor.shape)
