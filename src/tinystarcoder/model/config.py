"""The architecture's numbers, under the names of Hugging Face's ``config.json``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import CheckpointError, UnsupportedArchitectureError

ARCHITECTURE = "GPTBigCodeForCausalLM"
MODEL_TYPE = "gpt_bigcode"
ACTIVATIONS = ("gelu_pytorch_tanh", "gelu")

# csrc/packing.cpp has them too. A damaged number would have us list a billion tensors.
_MOST = {
    "vocab_size": 1 << 24,
    "n_positions": 1 << 24,
    "n_embd": 1 << 16,
    "n_layer": 1 << 12,
    "n_head": 1 << 16,
    "n_inner": 1 << 18,
}


@dataclass(frozen=True)
class ModelConfig:
    """One GPTBigCode model. Defaults are those of ``bigcode/tiny_starcoder_py``."""

    vocab_size: int = 49152
    n_positions: int = 8192
    n_embd: int = 768
    n_layer: int = 20
    n_head: int = 12
    n_inner: int = 3072
    multi_query: bool = True
    activation_function: str = "gelu_pytorch_tanh"
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    attn_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    bos_token_id: int = 0
    eos_token_id: int = 0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(f"config: {name} must be a positive integer, not {value!r}")
            if value > most:
                raise CheckpointError(f"config: {name} {value}: no model has more than {most}")
        if not isinstance(self.multi_query, bool):
            raise CheckpointError(
                f"config: multi_query must be true or false, not {self.multi_query!r}"
            )
        epsilon = self.layer_norm_epsilon
        is_number = isinstance(epsilon, int | float) and not isinstance(epsilon, bool)
        if not (is_number and 0 < epsilon < math.inf):
            raise CheckpointError(
                f"config: layer_norm_epsilon must be a positive number, not {epsilon!r}"
            )
        if self.n_embd % self.n_head:
            raise CheckpointError(
                f"config: n_embd {self.n_embd} is not a multiple of n_head {self.n_head}"
            )
        if self.activation_function not in ACTIVATIONS:
            raise UnsupportedArchitectureError(
                f"config: activation_function {self.activation_function!r} is not supported; "
                f"supported are {', '.join(ACTIVATIONS)}"
            )

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def n_kv_head(self) -> int:
        return 1 if self.multi_query else self.n_head

    @property
    def kv_dim(self) -> int:
        """Width of K (and of V) of one layer: one head with multi-query attention."""
        return self.n_kv_head * self.head_dim

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of a checkpoint and its shape, ``[out, in]``, lm_head (tied) left out."""
        width, inner = self.n_embd, self.n_inner
        shapes: dict[str, tuple[int, ...]] = {
            "transformer.wte.weight": (self.vocab_size, width),
            "transformer.wpe.weight": (self.n_positions, width),
        }
        for layer in range(self.n_layer):
            block = f"transformer.h.{layer}"
            for norm in ("ln_1", "ln_2"):
                shapes[f"{block}.{norm}.weight"] = shapes[f"{block}.{norm}.bias"] = (width,)
            for name, out, into in (
                ("attn.c_attn", width + 2 * self.kv_dim, width),
                ("attn.c_proj", width, width),
                ("mlp.c_fc", inner, width),
                ("mlp.c_proj", width, inner),
            ):
                shapes[f"{block}.{name}.weight"] = (out, into)
                shapes[f"{block}.{name}.bias"] = (out,)
        shapes["transformer.ln_f.weight"] = shapes["transformer.ln_f.bias"] = (width,)
        return shapes

    def num_parameters(self) -> int:
        """Trainable numbers, the tied lm_head counted once."""
        total = 0
        for shape in self.shapes().values():
            size = 1
            for extent in shape:
                size *= extent
            total += size
        return total

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Reads a parsed ``config.json``.

        Raises UnsupportedArchitectureError where it describes another model,
        CheckpointError where a number is missing or impossible. What else is
        missing has the defaults of this class.
        """
        model_type = values.get("model_type")
        if model_type != MODEL_TYPE:
            raise UnsupportedArchitectureError(
                f"config: model_type {model_type!r} is not supported; "
                f"this package runs {MODEL_TYPE!r} (StarCoder's family)"
            )
        if values.get("scale_attn_weights") is False:
            raise UnsupportedArchitectureError("config: scale_attn_weights false is not supported")
        known = {field.name for field in fields(cls)}
        chosen = {name: value for name, value in values.items() if name in known}
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            if name not in chosen:
                raise CheckpointError(f"config: {name} is missing")
        if chosen.get("n_inner") is None and isinstance(chosen["n_embd"], int):
            chosen["n_inner"] = 4 * chosen["n_embd"]
        for name in ("bos_token_id", "eos_token_id"):
            if chosen.get(name) is None:
                chosen.pop(name, None)
        return cls(**chosen)

    def to_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds, but for the stored dtype, which the writer adds."""
        return {
            "architectures": [ARCHITECTURE],
            "model_type": MODEL_TYPE,
            **asdict(self),
            "scale_attn_weights": True,
            "attention_softmax_in_fp32": True,
            "scale_attention_softmax_in_fp32": True,
            "tie_word_embeddings": True,
            "use_cache": True,
        }


def _family(n_layer: int, n_embd: int, n_head: int) -> ModelConfig:
    # The relatives' configs say "gelu", the exact form.
    return ModelConfig(
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_inner=4 * n_embd,
        activation_function="gelu",
    )


TINY = ModelConfig()

PRESETS: dict[str, ModelConfig] = {
    "nano": replace(
        TINY, vocab_size=8192, n_positions=2048, n_embd=256, n_layer=6, n_head=4, n_inner=1024
    ),
    "tiny": TINY,
    "santacoder": replace(_family(24, 2048, 16), vocab_size=49280, n_positions=2048),
    "1b": _family(24, 2048, 16),
    "3b": _family(36, 2816, 22),
    "7b": _family(42, 4096, 32),
    "15b": _family(40, 6144, 48),
}
