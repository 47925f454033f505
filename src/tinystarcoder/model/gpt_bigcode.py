"""GPTBigCode in torch: GPT-2 with multi-query attention.

Module names are the checkpoint's keys, so nothing is mapped: ``load_state_dict``
takes the tensors of a Hugging Face folder as they are (lm_head is wte, stored
once). Follows transformers' ``modeling_gpt_bigcode.py``; gives up padding masks
and cross-attention: rows of a batch have one length, and causal is all there is.

Shapes: B batch, T new tokens, S tokens in the cache, D width, H heads, K key
and value heads (1 with multi-query), C head width, V vocabulary.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import RequestError
from .config import ModelConfig


class KVCache:
    """Keys and values of one batch, ``[L, 2, B, K, capacity, C]``, and how many are filled."""

    def __init__(self, config: ModelConfig, batch: int, capacity: int, like: Tensor) -> None:
        self.length = 0
        self.capacity = capacity
        self._tensor = like.new_empty(
            config.n_layer, 2, batch, config.n_kv_head, capacity, config.head_dim
        )

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores ``[B, K, T, C]`` after the filled part; returns all S + T of both.

        ``length`` is left to the caller: every layer appends at the same place. No
        gradient passes through a cache: it is for inference.
        """
        end = self.length + key.shape[2]
        keys, values = self._tensor[layer, 0, :, :, :end], self._tensor[layer, 1, :, :, :end]
        keys[:, :, self.length :] = key.detach()
        values[:, :, self.length :] = value.detach()
        return keys, values


class Attention(nn.Module):
    """Causal self-attention; with multi-query, K and V are one head wide."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.c_attn = nn.Linear(config.n_embd, config.n_embd + 2 * config.kv_dim)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        batch, time, width = x.shape
        query, key, value = self._heads(self.c_attn(x))
        past = 0
        if cache is not None:
            past = cache.length
            key, value = cache.append(self.layer, key, value)
        # is_causal aligns its triangle to the top left: right only where nothing came before.
        mask = None
        if past and time > 1:
            mask = torch.ones(time, past + time, dtype=torch.bool, device=x.device).tril(past)
        # enable_gqa lets every query head read the one K and V head: nothing is expanded.
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=not past,
            dropout_p=self.config.attn_pdrop if self.training else 0.0,
            enable_gqa=self.config.multi_query,
        )
        projected: Tensor = self.c_proj(out.transpose(1, 2).reshape(batch, time, width))
        return projected

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, T, D + 2 K C]`` to Q ``[B, H, T, C]`` and K, V ``[B, K, T, C]``."""
        batch, time, _ = qkv.shape
        heads, head_dim = self.config.n_head, self.config.head_dim
        if self.config.multi_query:
            query, key, value = torch.split(qkv, [heads * head_dim, head_dim, head_dim], dim=-1)
            query = query.reshape(batch, time, heads, head_dim).transpose(1, 2)
            return query, key.unsqueeze(1), value.unsqueeze(1)
        # Without multi-query the rows of c_attn interleave: q, k, v of each head in turn.
        interleaved = qkv.reshape(batch, time, heads, 3 * head_dim).transpose(1, 2)
        query, key, value = torch.split(interleaved, head_dim, dim=-1)
        return query, key, value


class MLP(nn.Module):
    """Two linear layers around a GELU, exact or by its tanh approximation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.n_inner)
        self.c_proj = nn.Linear(config.n_inner, config.n_embd)
        self.approximate = "none" if config.activation_function == "gelu" else "tanh"

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate))
        return projected


class Block(nn.Module):
    """One pre-norm layer: ``x += attn(ln_1 x); x += mlp(ln_2 x)``."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = config.resid_pdrop

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        x = x + F.dropout(self.attn(self.ln_1(x), cache), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)


class Transformer(nn.Module):
    """Embeddings, blocks and the last norm: everything but the logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        past = 0 if cache is None else cache.length
        end = past + ids.shape[1]
        limit = self.config.n_positions if cache is None else cache.capacity
        if end > limit:
            raise RequestError(f"{end} tokens do not fit in {limit} positions")
        x = self.wte(ids) + self.wpe.weight[past:end]
        x = F.dropout(x, self.config.embd_pdrop, self.training)
        for block in self.h:
            x = block(x, cache)
        if cache is not None:
            cache.length = end
        out: Tensor = self.ln_f(x)
        return out


class GPTBigCode(nn.Module):
    """The language model. ``forward`` maps ids ``[B, T]`` to logits ``[B, T, V]``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits after each of ``ids``; with a cache, ids continue what it holds.

        Raises RequestError past the model's (or the cache's) last position.
        """
        return F.linear(self.transformer(ids, cache), self.transformer.wte.weight)

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache in the weights' dtype and device, for up to ``capacity`` positions."""
        limit = self.config.n_positions
        like = self.transformer.wte.weight
        return KVCache(self.config, batch, min(capacity or limit, limit), like)

    @torch.no_grad()
    def initialize(self, seed: int, *, std: float, zero_output: bool = False) -> None:
        """Draws weights N(0, std), biases 0, norms 1.

        The two projections into the residual stream are scaled by 1/√(2·n_layer)
        as GPT-2's, or start at zero, which learns faster under Muon.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if "ln_" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias") or (zero_output and "c_proj" in name):
                parameter.zero_()
            else:
                scale = 1 / math.sqrt(2 * self.config.n_layer) if "c_proj" in name else 1.0
                parameter.normal_(0.0, std * scale, generator=generator)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every tensor as float32 on the CPU, by its checkpoint key."""
        return {k: v.detach().float().cpu().numpy() for k, v in self.state_dict().items()}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the tensors of a checkpoint; names and shapes must be the model's own."""
        self.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
